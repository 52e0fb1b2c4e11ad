"""The commands of the command line, a function each, from parsed arguments. What one needs is imported when it runs."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blocks.errors import ConfigError, require
from train.cli import configs, suggestions
from train.system import startup


def list_(arguments: argparse.Namespace) -> None:
    """zoo list [WHAT [NAME]] [--length N] [--json]"""
    from train.cli.lists import show_list

    show_list(arguments)


def show(arguments: argparse.Namespace) -> None:
    """zoo show MODEL [key=value ...] [--length N] [--json]"""
    from train.cli import tables
    from zoo.config.model import ModelConfig, load_model
    from zoo.config.schema import dotted
    from zoo.ledger.ledger import ledger

    require(arguments.length >= 1, "--length", arguments.length, "must be at least 1")
    path, overrides = configs.find_model(arguments.model), arguments.overrides
    config = _with_known_keys(lambda: load_model(path, dotted(overrides)), path, overrides, ModelConfig)
    rows = ledger(config, arguments.length)
    print(json.dumps(rows.as_dict())) if arguments.json else tables.show(arguments.model, config, rows)


def _with_known_keys(load: Callable[[], Any], path: Path, overrides: list[str], kind: type) -> Any:
    """What `load` returns; its ConfigError about an override's key suggests the known key. kind: the dataclass of the YAML at `path`."""
    from zoo.config.schema import load_yaml

    try:
        return load()
    except ConfigError as error:
        raise suggestions.with_known_key(error, overrides, list(suggestions.keys(load_yaml(path), kind))) from None


def _experiment(arguments: argparse.Namespace) -> Any:
    """The checked experiment that the arguments name, with their overrides."""
    from train.config.experiment import ExperimentConfig, load_experiment

    path, overrides = configs.find_experiment(arguments.experiment), arguments.overrides
    return _with_known_keys(lambda: load_experiment(path, overrides), path, overrides, ExperimentConfig)


def check(arguments: argparse.Namespace) -> None:
    """zoo check TYPE [key=value ...]"""
    from blocks.catalogue import block_types
    from zoo.check.contract import ContractError, run_checks

    if arguments.backend is not None:
        check_backend(arguments)
        return
    if arguments.type is None:
        raise ConfigError("check", None, "needs a block's type", f"one of {', '.join(block_types())}, or --backend all for every block")
    config = _block(arguments.type, arguments)
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
    from blocks.catalogue import block_types
    from blocks.errors import one_of
    from zoo.check.backends import COMPARED

    one_of("--backend", arguments.backend, ("all", *COMPARED))
    names = COMPARED if arguments.backend == "all" else (arguments.backend,)
    broken = [_broken_backends(type_, names, arguments) for type_ in ([arguments.type] if arguments.type else block_types())]
    if any(broken):
        raise SystemExit(1)


def _broken_backends(block_type: str, names: tuple[str, ...], arguments: argparse.Namespace) -> int:
    """Print how a block's back ends compare with the reference; how many differ from it."""
    from zoo.check.backends import check_backends
    from zoo.check.contract import ContractError

    print(f"{block_type}: back ends beside the reference")
    config, broken = _block(block_type, arguments), 0
    for name in names:
        try:
            for result in check_backends(config, arguments.d_model, (name,)):
                print(_backend_line(result), flush=True)
        except ContractError as error:
            broken += 1
            print(f"  BROKEN {error}", flush=True)
    return broken


def _block(block_type: str, arguments: argparse.Namespace) -> Any:
    """The config of a block of that type, with the arguments' overrides."""
    from blocks.catalogue import config_class
    from zoo.config.schema import dotted, parse

    return parse(config_class(block_type, tuple(arguments.plugin)), dotted(arguments.overrides), "")


def _backend_line(result: Any) -> str:
    if result.refusal is not None:
        return f"  -      {result.backend:<14} {result.refusal}"
    return f"  holds  {result.backend:<14} {', '.join(result.operations)}; {result.dtype}, largest relative difference {result.worst:.1e}"


def plan(arguments: argparse.Namespace) -> None:
    """zoo plan EXPERIMENT [key=value ...] [--json]"""
    from train.cli import tables
    from train.plan.plan import make_plan

    planned = make_plan(_experiment(arguments))
    print(json.dumps(planned.as_dict())) if arguments.json else tables.plan(planned)


def run_(arguments: argparse.Namespace) -> None:
    """zoo run EXPERIMENT [key=value ...] [--out FOLDER]"""
    from train.claims.verdict import read_verdict
    from train.report.claim_text import print_verdict
    from train.report.page import build_report
    from train.report.terminal import print_table
    from train.run.experiment import run_experiment

    folder = run_experiment(_experiment(arguments), arguments.out, workers=arguments.workers, threads=arguments.threads)
    print_table(folder)
    verdict = read_verdict(folder)
    if verdict is not None:
        print()
        print_verdict(verdict)
    print(f"\nreport: {build_report(folder)}")


def measure(arguments: argparse.Namespace) -> None:
    """zoo measure RUN [MEASURE ...] [key=value ...] [--out FOLDER]"""
    from train.cli.measure import measure_run

    configs.refuse_model(arguments.run)
    startup.set_up()
    _import(arguments.plugin)
    names = [text for text in arguments.overrides if "=" not in text]
    measure_run(arguments.run, names, [text for text in arguments.overrides if "=" in text], arguments.out)


def report(arguments: argparse.Namespace) -> None:
    """zoo report FOLDER"""
    from train.report.page import build_report

    print(build_report(arguments.folder))


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

    configs.refuse_model(arguments.run)
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
    """Import the packages that the user names on the command line; a file can't name one."""
    for name in plugins:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError("--plugin", name, f"can't be imported: {error}", "is its folder on PYTHONPATH?") from None


def generate(arguments: argparse.Namespace) -> None:
    """zoo generate RUN --prompt TEXT|- [--max-tokens N] [--temperature T] [--top-k K] [--top-p P] [--seed S]"""
    from functools import partial

    from train.cli.generate import write

    configs.refuse_model(arguments.run)
    startup.set_up()
    _import(arguments.plugin)
    options = {key: getattr(arguments, key) for key in ("max_tokens", "temperature", "top_k", "top_p", "seed")}
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    summary = write(arguments.run, prompt, partial(print, end="", flush=True), **options)
    print()
    print(summary, file=sys.stderr)


def env(arguments: argparse.Namespace) -> None:
    """zoo env [--fast] [--json]"""
    from train.bench.probe import gains
    from train.cli import tables
    from train.system.environment import environment

    startup.set_up()
    machine, measured = environment(), []
    if not arguments.json:
        tables.environment(machine)
    for gain in () if arguments.fast else gains(startup.physical_cores()):
        measured.append(gain)
        if not arguments.json:
            tables.gain(gain)
    if arguments.json:
        print(json.dumps(machine | {"gains": [vars(gain) for gain in measured]}))


def bench(arguments: argparse.Namespace) -> None:
    """zoo bench [WORD ...] [--rounds N] [--clock wall|cpu] [--threads N] [--save FOLDER] [--json]"""
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
    with show.drawing(cases, quiet=arguments.json) as progress:
        results = run(cases, threads, Effort(rounds=arguments.rounds, clock=arguments.clock), progress)
    record = as_json(results, environment() | {"threads": threads, "clock": arguments.clock})
    if arguments.save is not None:
        show.save(record, arguments.save)
    print(json.dumps(record)) if arguments.json else show.verdict(results)
