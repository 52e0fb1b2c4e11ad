"""The commands by name, each with its summary, its arguments and an example that works."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from train.cli import commands, lists

Argument = tuple[str, dict[str, Any]]  # a name or a flag, and what argparse is told about it


@dataclass(frozen=True)
class Command:
    """One command of the command line."""

    summary: str
    function: Callable[[argparse.Namespace], None]
    arguments: tuple[Argument, ...]
    examples: tuple[str, ...]  # as a user types them


JSON: Argument = ("--json", {"action": "store_true", "help": "print one JSON object on standard output and nothing else"})
OVERRIDES: Argument = ("overrides", {"nargs": "*", "metavar": "key=value", "help": "changes, such as blocks.M.d_state=32"})
PLUGINS: Argument = ("--plugin", {"action": "append", "default": [], "help": "a package of your own whose blocks may be named"})
EXPERIMENT: Argument = ("experiment", {"help": "an experiment's YAML, or its name in `zoo list experiments` or `zoo list claims`"})
RUN: Argument = (
    "run",
    {"help": "a run's folder, a checkpoint, an imported folder, a Hugging Face folder, or a Hugging Face hub id (owner/name)"},
)
INTO: Argument = ("--out", {"required": True, "metavar": "FOLDER", "help": "the folder to write"})
DTYPE: Argument = (
    "--dtype",
    {"choices": ["float32", "bfloat16", "float16"], "default": None, "help": "of the weights written (default: as they are stored)"},
)

LIST: tuple[Argument, ...] = (
    ("what", {"nargs": "?", "default": "all", "metavar": "WHAT", "help": f"{', '.join(lists.WHAT)} (default: all lists)"}),
    ("name", {"nargs": "?", "metavar": "NAME", "help": "one of them, or a group of keys: show its page"}),
    ("--length", {"type": int, "default": None, "metavar": "N", "help": "of models: also their FLOPs and state at N tokens"}),
    JSON,
)
SHOW: tuple[Argument, ...] = (
    ("model", {"help": "a model's YAML, or its name in `zoo list models`"}),
    OVERRIDES,
    ("--length", {"type": int, "default": 1024, "help": "tokens of the sequence (default 1024)"}),
    JSON,
)
CHECK: tuple[Argument, ...] = (
    ("type", {"nargs": "?", "help": "a block's type; with --backend it may be left out: every block"}),
    OVERRIDES,
    ("--d-model", {"type": int, "default": 32, "help": "width of the model (default 32)"}),
    PLUGINS,
    ("--backend", {"default": None, "help": "compare this back end, or all, with the reference instead of testing the contract"}),
)
RUN_EXPERIMENT: tuple[Argument, ...] = (
    EXPERIMENT,
    OVERRIDES,
    ("--out", {"default": None, "metavar": "FOLDER", "help": "the experiment's folder (default runs/NAME)"}),
    ("--workers", {"type": int, "default": None, "help": "runs trained at the same time (default: one a core, one on a GPU)"}),
    (
        "--threads",
        {"type": int, "default": 1, "help": "threads of each run (default 1); the same number of threads gives the same numbers"},
    ),
)
MEASURE: tuple[Argument, ...] = (
    RUN,
    ("overrides", {"nargs": "*", "metavar": "MEASURE or key=value", "help": "measures (default: loss), and changes such as times=64"}),
    (
        "--out",
        {"default": None, "metavar": "FOLDER", "help": "where results go (default: the run's folder; of a Hugging Face model runs/NAME)"},
    ),
    PLUGINS,
)
IMPORT: tuple[Argument, ...] = (
    ("source", {"metavar": "PATH_OR_ID", "help": "a folder with config.json and .safetensors, or a hub id (owner/name)"}),
    INTO,
    DTYPE,
    PLUGINS,
)
EXPORT: tuple[Argument, ...] = (
    RUN,
    OVERRIDES,
    (
        "--to",
        {"choices": ["hf"], "default": "hf", "help": "hf: a class of transformers if one computes this model, else zoo.hf's (default)"},
    ),
    (
        "--family",
        {"default": None, "help": "the family of checkpoints (default: the plainest that can hold the model; zoo holds every model)"},
    ),
    INTO,
    DTYPE,
    ("--shard-size", {"default": "5GB", "metavar": "SIZE", "help": "larger weights are split into shards with an index (default 5GB)"}),
    PLUGINS,
)
GENERATE: tuple[Argument, ...] = (
    RUN,
    ("--prompt", {"required": True, "metavar": "TEXT", "help": "the text to continue; - reads it from standard input"}),
    ("--max-tokens", {"type": int, "default": 256, "metavar": "N", "help": "draw at most N tokens (default 256)"}),
    (
        "--temperature",
        {"type": float, "default": 1.0, "metavar": "T", "help": "divides the logits; 0 takes the likeliest token (default 1)"},
    ),
    ("--top-k", {"type": int, "default": None, "metavar": "K", "help": "draw from the K likeliest tokens (default: all)"}),
    (
        "--top-p",
        {"type": float, "default": None, "metavar": "P", "help": "draw from the fewest tokens that hold P of the probability"},
    ),
    ("--seed", {"type": int, "default": 0, "metavar": "S", "help": "of the draws (default 0)"}),
    PLUGINS,
)
BENCH: tuple[Argument, ...] = (
    ("words", {"nargs": "*", "metavar": "WORD", "help": "only cases whose names hold it, such as 'sliding window' (default: all)"}),
    ("--rounds", {"type": int, "default": 9, "help": "timed steps of each side (default 9)"}),
    ("--clock", {"choices": ["wall", "cpu"], "default": "wall", "help": "cpu: processor time, for a busy machine; use --threads 1"}),
    ("--threads", {"type": int, "default": None, "help": "of each side (default: physical cores)"}),
    ("--save", {"default": None, "metavar": "FOLDER", "help": "also write bench.json and bench.png there"}),
    JSON,
)

COMMANDS = {
    "list": Command(
        "list the blocks, models, tasks, measures, experiments and claims", commands.list_, LIST, ("zoo list models --length 4096",)
    ),
    "show": Command(
        "show a model's layers: parameters, FLOPs and state of each",
        commands.show,
        SHOW,
        ("zoo show mamba2 blocks.M.d_state=32 --length 4096",),
    ),
    "check": Command(
        "test a block against the contract, or compare its back ends with the reference",
        commands.check,
        CHECK,
        ("zoo check gated_delta n_heads=2", "zoo check gqa --backend all"),
    ),
    "plan": Command(
        "show sizes, steps, FLOPs and mismatch of an experiment's runs; trains nothing",
        commands.plan,
        (EXPERIMENT, OVERRIDES, JSON),
        ("zoo plan configs/experiments/quickstart.yaml match.axis=params",),
    ),
    "run": Command(
        "plan, train, measure and report an experiment; after an interruption the same command goes on",
        commands.run_,
        RUN_EXPERIMENT,
        ("zoo run configs/experiments/quickstart.yaml --workers 2",),
    ),
    "measure": Command(
        "measure a run, a checkpoint, an imported model or a Hugging Face model",
        commands.measure,
        MEASURE,
        ("zoo measure runs/quickstart/text/mamba2-seed0 collapse times=16",),
    ),
    "report": Command(
        "build report.html anew in an experiment's folder",
        commands.report,
        (("folder", {"help": "an experiment's folder"}),),
        ("zoo report runs/quickstart",),
    ),
    "import": Command(
        "convert a Hugging Face checkpoint to a folder that every command reads",
        commands.import_,
        IMPORT,
        ("zoo import state-spaces/mamba-130m-hf --out imported/mamba",),
    ),
    "export": Command(
        "convert a run to a Hugging Face folder",
        commands.export,
        EXPORT,
        ("zoo export runs/quickstart/text/mamba2-seed0 --out exported/mamba2",),
    ),
    "generate": Command(
        "continue a text with a model, each token shown when it is drawn",
        commands.generate,
        GENERATE,
        ('zoo generate runs/quickstart/text/mamba2-seed0 --prompt "The state of" --max-tokens 64',),
    ),
    "env": Command(
        "show this machine, the settings made at start-up, and the speed that each gains",
        commands.env,
        (("--fast", {"action": "store_true", "help": "time nothing"}), JSON),
        ("zoo env --fast",),
    ),
    "bench": Command(
        "time the zoo's kernels beside the alternatives; results are ratios within one run",
        commands.bench,
        BENCH,
        ("zoo bench 'sliding window' --threads 1 --clock cpu",),
    ),
}
