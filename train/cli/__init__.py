"""The command line: `zoo COMMAND`, or `python -m train.cli COMMAND`."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code. Ctrl-C ends it with one sentence, also while modules are still being imported."""
    try:
        from train.cli.command_line import run_process

        code = run_process(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        print("zoo: interrupted", file=sys.stderr)
        code = 1
    sys.exit(code)


__all__ = ["main"]
