"""The command line. Exit codes: 0 done; 2 the input is wrong (one message, no traceback); 1 anything else."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from train.system import startup

startup.before_torch()

from blocks.errors import ConfigError  # noqa: E402
from train.cli import commands as do  # noqa: E402
from train.system.errors import ExperimentFailed  # noqa: E402


class _Parser(argparse.ArgumentParser):
    """argparse's errors in the house's words."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError("command line", None, message, f"see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Run one command; its exit code."""
    try:
        arguments = _parse(argv)
        arguments.command(arguments)
    except ConfigError as error:
        print(f"zoo: {error}", file=sys.stderr)
        return 2
    except ExperimentFailed as error:
        print(f"zoo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("zoo: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of a pipe left early
        return 1
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; overrides (key=value) may stand before and after flags, which argparse alone does not allow."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    late = [text for text in rest if "=" in text and not text.startswith("-")]
    unknown = [text for text in rest if text not in late]
    if unknown or (late and "overrides" not in arguments):
        parser.error(f"unknown arguments: {' '.join(unknown or late)}")
    if late:
        arguments.overrides = [*arguments.overrides, *late]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="zoo", description="An architecture zoo: one layer pattern, matched compute, honest measures.")
    commands = parser.add_subparsers(dest="name", metavar="COMMAND", required=True, parser_class=_Parser)

    add = _adder(commands)
    add("list", "what there is", do.list_, [("what", {"nargs": "?", "default": "all", "choices": ["all", *do.LISTS]}), LIST_LENGTH, JSON])
    add(
        "show",
        "the expanded stack and its ledger, a row a layer",
        do.show,
        [("model", {"help": "a model's YAML"}), OVERRIDES, LENGTH, JSON],
    )
    add("check", "the contract, on one block, or its back ends beside the reference", do.check, [TYPE, OVERRIDES, WIDTH, PLUGINS, BACKEND])
    add("plan", "sizes, steps, FLOPs and mismatch of an experiment; trains nothing", do.plan, [EXPERIMENT, OVERRIDES, JSON])
    add("run", "plan, train, measure and report an experiment; resumable", do.run_, [EXPERIMENT, OVERRIDES, OUT, WORKERS, THREADS])
    add(
        "measure",
        "measure a trained run, a checkpoint, an imported model, or one of Hugging Face as it is",
        do.measure,
        [RUN, ("overrides", {"nargs": "*", "metavar": "MEASURE or key=value"}), ROWS, PLUGINS],
    )
    add("report", "rebuild report.html of an experiment's folder", do.report, [("folder", {"help": "an experiment's folder"})])
    add("import", "a Hugging Face checkpoint, as a folder that every command reads", do.import_, [SOURCE, INTO, DTYPE, PLUGINS])
    add("export", "a run as a folder of Hugging Face", do.export, [RUN, OVERRIDES, TO, FAMILY, INTO, DTYPE, SHARDS, PLUGINS])
    add("generate", "go on with a text, shown as it is written", do.generate, [RUN, PROMPT, TOKENS, *DRAWS, PLUGINS])
    add("env", "this machine, what is set at start-up, and what each choice gains here", do.env, [FAST, JSON])
    add("bench", "our kernels beside the alternatives, as ratios in one run", do.bench, [CASES, ROUNDS, CLOCK, BENCH_THREADS, SAVE, JSON])
    return parser


JSON = ("--json", {"action": "store_true", "help": "one JSON object on standard output and nothing else"})
LENGTH = ("--length", {"type": int, "default": 1024, "help": "tokens of the sequence (default 1024)"})
LIST_LENGTH = ("--length", {"type": int, "default": None, "metavar": "N", "help": "of models, also FLOPs and state at N tokens"})
WIDTH = ("--d-model", {"type": int, "default": 32, "help": "width to test at (default 32)"})
PLUGINS = ("--plugin", {"action": "append", "default": [], "help": "a package whose blocks may be named"})
OVERRIDES = ("overrides", {"nargs": "*", "metavar": "key=value", "help": "changes, such as blocks.M.d_state=32"})
EXPERIMENT = ("experiment", {"help": "an experiment's YAML"})
TYPE = ("type", {"nargs": "?", "help": "a block's type; with --backend none = every block"})
BACKEND = ("--backend", {"default": None, "help": "compare this back end, or all, with the reference instead of running the contract"})
FAST = ("--fast", {"action": "store_true", "help": "measure nothing"})
CASES = ("words", {"nargs": "*", "metavar": "WORD", "help": "parts of cases' names, such as 'sliding window' (default: all)"})
ROUNDS = ("--rounds", {"type": int, "default": 9, "help": "timed steps of each side (default 9)"})
CLOCK = ("--clock", {"choices": ["wall", "cpu"], "default": "wall", "help": "cpu: processor time, for a busy machine; use --threads 1"})
BENCH_THREADS = ("--threads", {"type": int, "default": None, "help": "of each side (default: physical cores)"})
SAVE = ("--save", {"default": None, "metavar": "FOLDER", "help": "also write bench.json and bench.png there"})
OUT = ("--out", {"default": None, "help": "the experiment's folder (default runs/NAME)"})

SOURCE = ("source", {"metavar": "PATH_OR_ID", "help": "a folder with config.json and .safetensors, or a hub id (owner/name)"})
INTO = ("--out", {"required": True, "metavar": "FOLDER", "help": "the folder to write"})
RUN = ("run", {"help": "a run's folder, a checkpoint, an imported folder, a folder of Hugging Face, or a hub id (owner/name)"})
ROWS = (
    "--out",
    {"default": None, "metavar": "FOLDER", "help": "where rows and pictures go (default: its own folder; of Hugging Face: runs/NAME)"},
)
DTYPE = (
    "--dtype",
    {"choices": ["float32", "bfloat16", "float16"], "default": None, "help": "of the weights written (default: as they are stored)"},
)
SHARDS = ("--shard-size", {"default": "5GB", "metavar": "SIZE", "help": "above it the weights are shards with an index (default 5GB)"})
TO = (
    "--to",
    {"choices": ["hf"], "default": "hf", "help": "hf: a class of transformers if one computes this model, else zoo.hf's (default)"},
)
FAMILY = ("--family", {"default": None, "help": "the family of checkpoints (default: the plainest that takes the model; zoo takes all)"})
PROMPT = ("--prompt", {"required": True, "metavar": "TEXT", "help": "what the text begins with; -: what standard input holds"})
TOKENS = ("--max-tokens", {"type": int, "default": 256, "metavar": "N", "help": "at most so many more (default 256)"})
TEMPERATURE = ("--temperature", {"type": float, "default": 1.0, "metavar": "T", "help": "of the draws; 0 takes the likeliest (default 1)"})
TOP_K = ("--top-k", {"type": int, "default": None, "metavar": "K", "help": "draw from the K likeliest (default: all)"})
TOP_P = ("--top-p", {"type": float, "default": None, "metavar": "P", "help": "of these, from the fewest that hold P of the probability"})
SEED = ("--seed", {"type": int, "default": 0, "metavar": "S", "help": "of the draws (default 0)"})
DRAWS = (TEMPERATURE, TOP_K, TOP_P, SEED)
WORKERS = ("--workers", {"type": int, "default": None, "help": "runs beside each other (default: one a core, one on a GPU)"})
THREADS = ("--threads", {"type": int, "default": 1, "help": "threads of each run (default 1); equal numbers need equal threads"})


def _adder(commands: Any) -> Callable[[str, str, Callable[[argparse.Namespace], None], list[tuple[str, dict[str, Any]]]], None]:
    def add(name: str, text: str, command: Callable[[argparse.Namespace], None], arguments: list[tuple[str, dict[str, Any]]]) -> None:
        sub = commands.add_parser(name, help=text, description=text)
        for flag, options in arguments:
            sub.add_argument(flag, **options)
        sub.set_defaults(command=command)

    return add
