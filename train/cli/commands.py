"""The commands of the command line, each from its parsed arguments. What one needs is imported when it runs."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from typing import Any

from blocks.errors import ConfigError
from train.system import startup

LISTS = ("blocks", "models", "tasks", "measures", "experiments", "claims")


def list_(arguments: argparse.Namespace) -> None:
    """zoo list [blocks|models|tasks|measures|experiments|claims] [--length N] [--json]"""
    from blocks.errors import require
    from train.cli import tables

    names, length = list(LISTS) if arguments.what == "all" else [arguments.what], arguments.length
    require(length is None or length >= 1, "--length", length, "must be at least 1")
    require(length is None or "models" in names, "--length", length, "is only of models", "zoo list models --length N")
    found = {name: tables.models(length) if name == "models" else getattr(tables, name)() for name in names}
    if arguments.json:
        print(json.dumps(found))
        return
    for name, rows in found.items():
        tables.show_models(rows, length) if name == "models" else tables.table(name, rows)


def show(arguments: argparse.Namespace) -> None:
    """zoo show MODEL [key=value ...] [--length N] [--json]"""
    from train.cli import tables
    from zoo.config.model import load_model
    from zoo.config.schema import dotted
    from zoo.ledger.ledger import ledger

    if arguments.length < 1:
        raise ConfigError("--length", arguments.length, "must be at least 1")
    config = load_model(arguments.model, dotted(arguments.overrides))
    rows = ledger(config, arguments.length)
    print(json.dumps(rows.as_dict())) if arguments.json else tables.show(arguments.model, config, rows)


def check(arguments: argparse.Namespace) -> None:
    """zoo check TYPE [key=value ...]"""
    from blocks.catalogue import block_types, config_class
    from zoo.check.contract import ContractError, run_checks
    from zoo.config.schema import dotted, parse

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
    from blocks.catalogue import block_types, config_class
    from blocks.errors import one_of
    from zoo.check.backends import COMPARED, check_backends
    from zoo.check.contract import ContractError
    from zoo.config.schema import dotted, parse

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
    from train.bench.probe import gains
    from train.cli import tables
    from train.system.environment import environment

    startup.set_up()
    found = environment()
    tables.environment(found) if not arguments.json else None
    measured = []
    for gain in () if arguments.fast else gains(startup.physical_cores()):
        measured.append(gain)
        tables.gain(gain) if not arguments.json else None
    if arguments.json:
        print(json.dumps(found | {"gains": [vars(gain) for gain in measured]}))


def bench(arguments: argparse.Namespace) -> None:
    """zoo bench [WORD ...] [--rounds N] [--clock wall|cpu] [--threads N] [--save FOLDER] [--json]"""
    from blocks.errors import require
    from train.bench import show
    from train.bench.catalogue import chosen
    from train.bench.run import Effort, as_json, run
    from train.system.environment import environment

    require(arguments.rounds >= 3, "--rounds", arguments.rounds, "must be at least 3")
    threads = arguments.threads or startup.physical_cores()
    require(threads >= 1, "--threads", threads, "must be at least 1")
    require(arguments.clock == "wall" or threads == 1, "--clock", "cpu", "adds up the time of all threads", "--threads 1")
    cases = chosen(arguments.words)
    startup.set_up()
    effort = Effort(rounds=arguments.rounds, clock=arguments.clock)
    with show.drawing(cases, quiet=arguments.json) as told:
        results = run(cases, threads, effort, told)
    found = as_json(results, environment() | {"threads": threads, "clock": arguments.clock})
    if arguments.save is not None:
        show.save(found, arguments.save)
    print(json.dumps(found)) if arguments.json else show.verdict(results)


def plan(arguments: argparse.Namespace) -> None:
    """zoo plan EXPERIMENT [key=value ...] [--json]"""
    from train.cli import tables
    from train.config.experiment import load_experiment
    from train.plan.plan import make_plan

    made = make_plan(load_experiment(arguments.experiment, arguments.overrides))
    print(json.dumps(made.as_dict())) if arguments.json else tables.plan(made)


def run_(arguments: argparse.Namespace) -> None:
    """zoo run EXPERIMENT [key=value ...] [--out FOLDER]"""
    from train.claims.verdict import read_verdict
    from train.config.experiment import load_experiment
    from train.report.claim_text import print_verdict
    from train.report.page import build_report
    from train.report.terminal import print_table
    from train.run.experiment import run_experiment

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
    from train.cli.measure import measure_subject

    startup.set_up()
    _import(arguments.plugin)
    names = [text for text in arguments.overrides if "=" not in text]
    measure_subject(arguments.run, names, [text for text in arguments.overrides if "=" in text], arguments.out)


def import_(arguments: argparse.Namespace) -> None:
    """zoo import PATH_OR_ID --out FOLDER [--dtype NAME]"""
    from zoo.convert.checkpoint import import_to
    from zoo.ledger.ledger import ledger

    _import(arguments.plugin)
    config = import_to(arguments.source, arguments.out, _dtype(arguments.dtype))
    print(f"{arguments.out}: {config.pattern}, {ledger(config, 1).params:,} parameters")


def export(arguments: argparse.Namespace) -> None:
    """zoo export RUN [key=value of config.json ...] --out FOLDER [--to hf] [--family NAME] [--dtype NAME] [--shard-size SIZE]"""
    from train.data.text_codec import companions
    from zoo.config.schema import dotted
    from zoo.convert.checkpoint import OWN, export_folder
    from zoo.convert.hf_folder import resolve
    from zoo.convert.model_folder import load

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

    from train.cli.generate import write

    startup.set_up()
    _import(arguments.plugin)
    show = partial(print, end="", flush=True)
    asked = {key: getattr(arguments, key) for key in ("max_tokens", "temperature", "top_k", "top_p", "seed")}
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    written = write(arguments.run, prompt, show, **asked)
    print()
    print(written, file=sys.stderr)


def report(arguments: argparse.Namespace) -> None:
    """zoo report FOLDER"""
    from train.report.page import build_report

    print(build_report(arguments.folder))
