"""The folder of one run: what defines it, its summary, and its lock."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from blocks.errors import ConfigError
from train.config.run import RunConfig, first_difference
from train.data import Source
from train.plan.planned_run import PlannedRun
from train.system.atomic_files import write_json, write_text
from train.system.environment import environment
from train.trainer.divergence import TrainingFailed
from zoo.config.schema import load_yaml, parse

LOCK_SECONDS = 5


def run_folder(folder: Path, run: PlannedRun) -> Path:
    """Where a run of the experiment in `folder` is kept."""
    return folder / run.part / f"{run.model}-seed{run.seed}"


@dataclass(frozen=True)
class Failure:
    """A TrainingFailed as JSON holds it."""

    step: int
    reason: str
    layer: str | None
    advice: str

    def exception(self) -> TrainingFailed:
        return TrainingFailed(self.step, self.reason, self.layer, self.advice)


@dataclass(frozen=True)
class Summary:
    """What summary.json holds."""

    status: str  # done | failed
    name: str
    seed: int
    step: int  # steps done
    steps: int  # steps planned
    tokens: int  # read in the steps done
    flops: int  # spent in them, forward and backward, the ledger's
    params: int
    loss: float | None  # smoothed, nats a label
    best_loss: float | None  # the smallest smoothed loss
    seconds: float  # spent in training steps
    data: dict[str, str]  # label, fingerprint
    error: Failure | None  # of a failed run


def read_summary(folder: Path) -> Summary | None:
    """The summary of a run folder; None while it is not done."""
    path = folder / "summary.json"
    return parse(Summary, json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def check_same_run(folder: Path, run: RunConfig) -> None:
    """Raise ConfigError if the folder was made for another config."""
    path = folder / "config.yaml"
    if not path.exists():
        return
    difference = first_difference(load_yaml(path), run.as_dict())
    if difference is not None:
        key, before, now = difference
        raise ConfigError(key, now, f"{folder} holds a run with {before!r}", "choose another folder, or delete that one")


def write_definition(folder: Path, run: RunConfig, source: Source) -> None:
    """Write config.yaml and environment.json, or check that the data are still those that the run began with."""
    place = folder / "environment.json"
    data = {"label": source.label, "fingerprint": source.fingerprint, "vocab_size": source.vocab_size}
    if not place.exists():
        write_json(place, environment() | {"data": data})
    old = json.loads(place.read_text(encoding="utf-8"))["data"]
    if old != data:
        rule = f"{folder} was begun with other data, {old['fingerprint']}"
        raise ConfigError("data", data["fingerprint"], rule, "delete it to train anew")
    write_text(folder / "config.yaml", yaml.safe_dump(run.as_dict(), sort_keys=False))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder: no two processes train in one. The system frees the lock of a process that is killed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    for _ in range(LOCK_SECONDS * 10):  # the workers of a command that was killed need a moment to end
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)
        else:
            return
    raise ConfigError(str(folder), None, "another process is training in this folder")
