"""The command line. Exit codes: 0 done; 2 the input is wrong (one message, no traceback); 1 anything else."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from train import machine

machine.before_torch()

from blocks.base import ConfigError  # noqa: E402
from train.failure import ExperimentFailed  # noqa: E402


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
    add("list", "what there is", list_, [("what", {"nargs": "?", "default": "all", "choices": ["all", *LISTS]}), LIST_LENGTH, JSON])
    add("show", "the expanded stack and its ledger, a row a layer", show, [("model", {"help": "a model's YAML"}), OVERRIDES, LENGTH, JSON])
    add("check", "the contract, on one block, or its back ends beside the reference", check, [TYPE, OVERRIDES, WIDTH, PLUGINS, BACKEND])
    add("plan", "sizes, steps, FLOPs and mismatch of an experiment; trains nothing", plan, [EXPERIMENT, OVERRIDES, JSON])
    add("run", "plan, train, measure and report an experiment; resumable", run_, [EXPERIMENT, OVERRIDES, OUT, WORKERS, THREADS])
    add(
        "measure",
        "measure a trained run, a checkpoint, an imported model, or one of Hugging Face as it is",
        measure,
        [RUN, ("overrides", {"nargs": "*", "metavar": "MEASURE or key=value"}), ROWS, PLUGINS],
    )
    add("report", "rebuild report.html of an experiment's folder", report, [("folder", {"help": "an experiment's folder"})])
    add("import", "a Hugging Face checkpoint, as a folder that every command reads", import_, [SOURCE, INTO, DTYPE, PLUGINS])
    add("export", "a run as a folder of Hugging Face", export, [RUN, OVERRIDES, TO, FAMILY, INTO, DTYPE, SHARDS, PLUGINS])
    add("generate", "go on with a text, shown as it is written", generate, [RUN, PROMPT, TOKENS, *DRAWS, PLUGINS])
    add("env", "this machine, what is set at start-up, and what each choice gains here", env, [FAST, JSON])
    add("bench", "our kernels beside the alternatives, as ratios in one run", bench, [CASES, ROUNDS, CLOCK, BENCH_THREADS, SAVE, JSON])
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


def list_(arguments: argparse.Namespace) -> None:
    """zoo list [blocks|models|tasks|measures|experiments|claims] [--length N] [--json]"""
    from blocks.base import require
    from train import listing

    names, length = list(LISTS) if arguments.what == "all" else [arguments.what], arguments.length
    require(length is None or length >= 1, "--length", length, "must be at least 1")
    require(length is None or "models" in names, "--length", length, "is only of models", "zoo list models --length N")
    found = {name: listing.models(length) if name == "models" else getattr(listing, name)() for name in names}
    if arguments.json:
        print(json.dumps(found))
        return
    for name, rows in found.items():
        listing.show_models(rows, length) if name == "models" else listing.table(name, rows)


LISTS = ("blocks", "models", "tasks", "measures", "experiments", "claims")


def show(arguments: argparse.Namespace) -> None:
    """zoo show MODEL [key=value ...] [--length N] [--json]"""
    from train import listing
    from zoo.config import load_model
    from zoo.ledger import ledger
    from zoo.schema import dotted

    if arguments.length < 1:
        raise ConfigError("--length", arguments.length, "must be at least 1")
    config = load_model(arguments.model, dotted(arguments.overrides))
    rows = ledger(config, arguments.length)
    print(json.dumps(rows.as_dict())) if arguments.json else listing.show(arguments.model, config, rows)


def check(arguments: argparse.Namespace) -> None:
    """zoo check TYPE [key=value ...]"""
    from blocks.catalogue import block_types, config_class
    from zoo.check import ContractError, run_checks
    from zoo.schema import dotted, parse

    if arguments.backend is not None:
        check_backend(arguments)
        return
    if arguments.type is None:
        raise ConfigError("check", None, "needs a block's type", f"one of {', '.join(block_types())}, or --backend all for every block")
    cls = config_class(arguments.type, tuple(arguments.plugin))
    config = parse(cls, dotted(arguments.overrides), "")
    config.check(arguments.d_model)
    print(f"{arguments.type}: the contract at d_model {arguments.d_model}")
    try:
        for result in run_checks(config, arguments.d_model):
            print(f"  holds  {result.check:<28} largest relative difference {result.worst:.1e}", flush=True)
    except ContractError as error:
        print(f"  BROKEN {error}")
        raise SystemExit(1) from None


def check_backend(arguments: argparse.Namespace) -> None:
    """zoo check [TYPE] --backend NAME|all"""
    from blocks.base import one_of
    from blocks.catalogue import block_types, config_class
    from zoo.backends import COMPARED, check_backends
    from zoo.check import ContractError
    from zoo.schema import dotted, parse

    one_of("--backend", arguments.backend, ("all", *COMPARED))
    names = COMPARED if arguments.backend == "all" else (arguments.backend,)
    broken = False
    for kind in [arguments.type] if arguments.type else block_types():
        print(f"{kind}: back ends beside the reference")
        config = parse(config_class(kind, tuple(arguments.plugin)), dotted(arguments.overrides), "")
        for name in names:
            try:
                for result in check_backends(config, arguments.d_model, (name,)):
                    print(_backend_line(result), flush=True)
            except ContractError as error:
                broken = True
                print(f"  BROKEN {error}", flush=True)
    if broken:
        raise SystemExit(1)


def _backend_line(result: Any) -> str:
    if result.refusal is not None:
        return f"  -      {result.backend:<14} {result.refusal}"
    return f"  holds  {result.backend:<14} {', '.join(result.operations)}; {result.dtype}, largest relative difference {result.worst:.1e}"


def env(arguments: argparse.Namespace) -> None:
    """zoo env [--fast] [--json]"""
    from train import listing
    from train.bench.probe import gains
    from train.environment import environment

    machine.set_up()
    found = environment()
    listing.environment(found) if not arguments.json else None
    measured = []
    for gain in () if arguments.fast else gains(machine.physical_cores()):
        measured.append(gain)
        listing.gain(gain) if not arguments.json else None
    if arguments.json:
        print(json.dumps(found | {"gains": [vars(gain) for gain in measured]}))


def bench(arguments: argparse.Namespace) -> None:
    """zoo bench [WORD ...] [--rounds N] [--clock wall|cpu] [--threads N] [--save FOLDER] [--json]"""
    from blocks.base import require
    from train.bench import show
    from train.bench.catalogue import chosen
    from train.bench.run import Effort, as_json, run
    from train.environment import environment

    require(arguments.rounds >= 3, "--rounds", arguments.rounds, "must be at least 3")
    threads = arguments.threads or machine.physical_cores()
    require(threads >= 1, "--threads", threads, "must be at least 1")
    require(arguments.clock == "wall" or threads == 1, "--clock", "cpu", "adds up the time of all threads", "--threads 1")
    cases = chosen(arguments.words)
    machine.set_up()
    effort = Effort(rounds=arguments.rounds, clock=arguments.clock)
    with show.drawing(cases, quiet=arguments.json) as told:
        results = run(cases, threads, effort, told)
    found = as_json(results, environment() | {"threads": threads, "clock": arguments.clock})
    if arguments.save is not None:
        show.save(found, arguments.save)
    print(json.dumps(found)) if arguments.json else show.verdict(results)


def plan(arguments: argparse.Namespace) -> None:
    """zoo plan EXPERIMENT [key=value ...] [--json]"""
    from train import listing
    from train.experiment import load_experiment
    from train.plan import make_plan

    made = make_plan(load_experiment(arguments.experiment, arguments.overrides))
    print(json.dumps(made.as_dict())) if arguments.json else listing.plan(made)


def run_(arguments: argparse.Namespace) -> None:
    """zoo run EXPERIMENT [key=value ...] [--out FOLDER]"""
    from train.claims.show import print_verdict
    from train.claims.verdict import read_verdict
    from train.experiment import load_experiment
    from train.report import build_report, print_table
    from train.runner import run_experiment

    experiment = load_experiment(arguments.experiment, arguments.overrides)
    folder = run_experiment(experiment, arguments.out, workers=arguments.workers, threads=arguments.threads)
    print_table(folder)
    verdict = read_verdict(folder)
    if verdict is not None:
        print()
        print_verdict(verdict)
    print(f"\nreport: {build_report(folder)}")


def measure(arguments: argparse.Namespace) -> None:
    """zoo measure RUN [MEASURE ...] [key=value ...] [--out FOLDER]"""
    from train.subject import measure_subject

    machine.set_up()
    _import(arguments.plugin)
    names = [text for text in arguments.overrides if "=" not in text]
    measure_subject(arguments.run, names, [text for text in arguments.overrides if "=" in text], arguments.out)


def import_(arguments: argparse.Namespace) -> None:
    """zoo import PATH_OR_ID --out FOLDER [--dtype NAME]"""
    from zoo.interop.checkpoint import import_to
    from zoo.ledger import ledger

    _import(arguments.plugin)
    config = import_to(arguments.source, arguments.out, _dtype(arguments.dtype))
    print(f"{arguments.out}: {config.pattern}, {ledger(config, 1).params:,} parameters")


def export(arguments: argparse.Namespace) -> None:
    """zoo export RUN [key=value of config.json ...] --out FOLDER [--to hf] [--family NAME] [--dtype NAME] [--shard-size SIZE]"""
    from train.coder import companions
    from zoo.interop.checkpoint import OWN, export_folder
    from zoo.interop.folder import resolve
    from zoo.loading import load
    from zoo.schema import dotted

    _import(arguments.plugin)
    extra, run = dotted(arguments.overrides), resolve(arguments.run)
    model = load(run, dtype=_dtype(arguments.dtype))
    with companions(run) as tokenizer:
        more = {"extra": extra, "companions": tokenizer, "shard_size": arguments.shard_size}
        family = export_folder(model, arguments.out, arguments.family, **more)
    reader = "transformers reads it after `import zoo.hf`" if family == OWN else "transformers reads it"
    print(f"{arguments.out}: {family}; {reader}")


def _dtype(name: str | None) -> Any:
    import torch

    return None if name is None else getattr(torch, name)


def _import(plugins: list[str]) -> None:
    """What the user names, and nothing that a file names."""
    for name in plugins:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError("--plugin", name, f"can't be imported: {error}", "is its folder on PYTHONPATH?") from None


def generate(arguments: argparse.Namespace) -> None:
    """zoo generate FOLDER --prompt TEXT|- [--max-tokens N] [--temperature T] [--top-k K] [--top-p P] [--seed S]"""
    from functools import partial

    from train.writing import write

    machine.set_up()
    _import(arguments.plugin)
    show = partial(print, end="", flush=True)
    asked = {key: getattr(arguments, key) for key in ("max_tokens", "temperature", "top_k", "top_p", "seed")}
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    written = write(arguments.run, prompt, show, **asked)
    print()
    print(written, file=sys.stderr)


def report(arguments: argparse.Namespace) -> None:
    """zoo report FOLDER"""
    from train.report import build_report

    print(build_report(arguments.folder))


if __name__ == "__main__":
    main()
