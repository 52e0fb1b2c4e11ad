"""The command line: `zoo COMMAND`, or `python -m train.cli COMMAND`."""

from train.cli.command_line import main

__all__ = ["main"]
