"""The command line. Exit codes: 0 done; 2 the input is wrong (one message, no traceback); 1 anything else.

Nothing here imports torch, so that help and lists appear at once; a command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from train.system import startup

startup.before_torch()

from blocks.errors import ConfigError  # noqa: E402
from train.cli.options import COMMANDS, Command  # noqa: E402
from train.cli.suggestions import did_you_mean  # noqa: E402
from train.system.errors import ExperimentFailed  # noqa: E402


class _Parser(argparse.ArgumentParser):
    """Wrong arguments are a ConfigError, as every other wrong input is."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError("command line", None, message, f"see {self.prog} --help")


def run_process(argv: Sequence[str]) -> int:
    """Run one command in a process of its own; its exit code. A reader that closed the pipe early is no error worth a message."""
    try:
        try:
            return run(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere when Python exits
        return 1


def run(argv: Sequence[str]) -> int:
    """Run one command; its exit code."""
    try:
        arguments = parse(argv)
        arguments.command(arguments)
    except (ConfigError, ExperimentFailed) as error:
        print(f"zoo: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, ExperimentFailed) else 2
    except KeyboardInterrupt:
        resumable = "; the same command goes on from the last checkpoint" if argv[:1] == ["run"] else ""
        print(f"zoo: interrupted{resumable}", file=sys.stderr)
        return 1
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments. Overrides (key=value) may stand before and after flags, which argparse alone does not allow."""
    parser = _parser()
    if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
        hint = did_you_mean(argv[0], COMMANDS)
        raise ConfigError("command", argv[0], "there is no such command", f"{hint}Commands: {', '.join(COMMANDS)}")
    arguments, rest = parser.parse_known_args(argv)
    late = [text for text in rest if "=" in text and not text.startswith("-")]
    unknown = [text for text in rest if text not in late]
    if unknown or (late and "overrides" not in arguments):
        parser.error(f"unknown arguments: {' '.join(unknown or late)}")
    if late:
        arguments.overrides = [*arguments.overrides, *late]
    return arguments


def version() -> str:
    """The version of the checkout that runs: the one in its pyproject.toml."""
    import tomllib
    from pathlib import Path

    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    return str(tomllib.loads(text)["project"]["version"])


class _Version(argparse.Action):
    """`zoo --version`; the file that holds it is read only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print(f"zoo {version()}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="zoo", description="An architecture zoo: one layer pattern, matched compute, honest measures.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    parser.set_defaults(command=lambda _: parser.print_help())
    commands = parser.add_subparsers(dest="name", metavar="COMMAND", parser_class=_Parser)
    for name, command in COMMANDS.items():
        _add(commands, name, command)
    return parser


def _add(commands: Any, name: str, command: Command) -> None:
    """One command with its arguments; its help ends with its example."""
    lines = "\n".join(f"  {line}" for line in command.examples)
    parser = commands.add_parser(
        name,
        help=command.summary,
        description=command.summary,
        epilog=f"example:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for flag, options in command.arguments:
        parser.add_argument(flag, **options)
    parser.set_defaults(command=command.function)
