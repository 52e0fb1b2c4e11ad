"""A small experiment: two models, a recall part and a text part."""

from copy import deepcopy
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import yaml

from train.config.experiment import load_experiment
from train.measure.results import joined, write
from train.plan.plan import make_plan
from train.run.experiment import collect, run_folder
from train.run.worker import execute
from train.system.atomic_files import write_json
from zoo.config.schema import merge

FEED = {"F": {"type": "swiglu", "hidden": 32}}
SIZE = {"d_model": 16, "vocab_size": 256}
TRAIN = {"batch_size": 4, "lr": 0.003, "checkpoint_every": 4, "log_every": 3, "loggers": ["csv"]}


def experiment(text: Path, **changes: Any) -> dict[str, Any]:
    """The experiment's YAML as a mapping; `text` holds the documents of its text part."""
    attention = {**SIZE, "blocks": {"A": {"type": "gqa", "n_heads": 2}, **FEED}, "pattern": "A F"}
    recurrent = {**SIZE, "blocks": {"R": {"type": "linear_attention", "n_heads": 2}, **FEED}, "pattern": "R F"}
    recall = {
        "set": {"vocab_size": 64},
        "data": {"kind": "mqar", "vocab_size": 64, "length": 32, "mix": [{"pairs": 2}, {"pairs": 4, "length": 16}]},
        "budget": {"steps": 30},
        "train": dict(TRAIN),
        "measures": {"recall": {"sizes": [[32, 2], [64, 4]], "examples": 8}},
    }
    reading = {
        "data": {"kind": "text", "path": str(text), "length": 24},
        "budget": {"steps": 20},
        "train": dict(TRAIN),
        "measures": {"loss": {"window": 24}, "collapse": {"times": 4, "documents": 2}},
    }
    base = {
        "name": "tiny",
        "question": "Which of the two recalls?",
        "seeds": [0],
        "match": {"axis": "flops", "reference": "attention", "tolerance": 0.05},
        "models": {"attention": {"model": attention}, "recurrent": {"model": recurrent, "vary": ["blocks.F.hidden"]}},
        "parts": {"recall": recall, "text": reading},
    }
    return deepcopy(merge(base, changes))


def write_text_folder(folder: Path) -> Path:
    """Documents of some hundred bytes, split by name."""
    words = ("the state of a gate", "keeps what it holds", "and forgets the rest", "of all that it read")
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        (folder / split).mkdir(parents=True)
        for i in range(count):
            lines = (f"{words[(i + j) % 4]} {words[(i * j) % 4]} {i * j}.\n" for j in range(12))
            (folder / split / f"{i}.txt").write_text("".join(lines))
    return folder


def write_experiment(folder: Path, **changes: Any) -> Path:
    """The YAML in `folder`, its text beside it."""
    text = folder / "text"
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(experiment(text if text.exists() else write_text_folder(text), **changes)))
    return path


def finished(path: Path, out: Path) -> Path:
    """The experiment done in this very process, run after run: the folder that `zoo run` would leave, without its report."""
    plan = make_plan(load_experiment(path))
    out.mkdir()
    write_json(out / "plan.json", plan.as_dict())
    for index, run in enumerate(plan.runs):
        assert execute(index, run, run_folder(out, run), SimpleQueue()) is None
    records = collect(plan, out)
    write(out / "results.csv", [*records, *joined(records)])
    return out
