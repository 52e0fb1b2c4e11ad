"""Training of one run: plan, train or go on, and a folder from which everything can be read again.

    config.yaml        all that defines the run, every default written out
    metrics.csv        step, tokens, flops, loss, lr, grad_norm, with experts load_violation, dead_experts: the same in every repetition
                       on a CPU
    timings.csv        seconds, tokens_per_s, gflops_per_s
    validation.csv     held-out losses, if validate_every is set
    checkpoint/        see train.checkpoint
    summary.json       status done or failed, and the end of the run
    environment.json   versions, machine, commit, the data's fingerprint

Killed at any instant and started again, a run goes on from its checkpoint and ends with the same weights and rows.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from blocks.base import ConfigError, require
from kernels import BackendError, backend
from train.bar import Bar
from train.checkpoint import begun, restore
from train.config import KernelsConfig, RunSpec, first_difference
from train.data import Source, open_source
from train.environment import environment
from train.files import write_json, write_text
from train.health import TrainingFailed
from train.spending import Spending
from train.start import check_init, first_model
from zoo.model import build
from zoo.schema import load_yaml, parse
from zoo.weights import put_weights

__all__ = ["Bar", "Summary", "TrainingFailed", "read_summary", "train_run"]


LOCK_SECONDS = 5


@contextmanager
def served_by(kernels: KernelsConfig) -> Iterator[None]:
    """Operations inside this `with` are computed as the config says. Raises ConfigError if its backend can't serve one."""
    try:
        with backend(kernels.backend):
            yield
    except BackendError as error:
        raise ConfigError("kernels.backend", kernels.backend, str(error), "auto takes what fits") from None


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


def train_run(spec: RunSpec, folder: Path, *, source: Source | None = None, progress: Bar | None = None) -> Summary:
    """Train the run in its folder, or go on with it, or return at once if it is done.

    source: the data, if it is open already (drawn with spec.seed). progress: told how the run gets on.
    Raises ConfigError if the run can't be trained or the folder holds another one, TrainingFailed if it went wrong (now or before),
    KernelError if kernels.verify finds an operation that differs from its reference: nothing is written then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        _same_run(folder, spec)
        summary = read_summary(folder)
        if summary is not None:
            if summary.error is not None:
                raise summary.error.exception()
            return summary
        source = open_source(spec.data, spec.seed) if source is None else source
        _check_data(spec, source)
        if not begun(folder):  # what has a checkpoint needs `init` no more
            check_init(spec)
        spending = Spending(spec.model, source.lengths, spec.train.sequences_per_step)
        steps = spec.steps or spending.steps(spec.budget)
        _claim(folder, spec.resolved(steps), source)
        return _train(_Run(spec, folder, source, spending, steps), progress)


@dataclass(frozen=True)
class _Run:
    spec: RunSpec
    folder: Path
    source: Source
    spending: Spending
    steps: int


def _train(run: _Run, bar: Bar | None) -> Summary:
    from train.fit import fit  # Lightning takes seconds to import: only where something is trained
    from train.module import Training

    start = restore(run.folder)
    if start is None:
        model = first_model(run.spec)
    else:
        model = build(run.spec.model, run.spec.seed)
        put_weights(model, start.model, str(run.folder))
    training = Training(model, run.spec, run.steps, start)
    try:
        with served_by(run.spec.kernels):
            fit(training, run.folder, run.source, run.spending, bar)
    except TrainingFailed as failure:
        saved = restore(run.folder)
        kept = f"the checkpoint of step {saved.progress.step} is kept" if saved is not None else "no checkpoint was written yet"
        error = Failure(failure.step, failure.reason, failure.layer, f"{failure.advice}; {kept}; delete {run.folder} to train it anew")
        _write_summary(run, training, "failed", error)
        raise error.exception() from None
    return _write_summary(run, training, "done", None)


def _write_summary(run: _Run, training: Any, status: str, error: Failure | None) -> Summary:
    p, spec = training.progress, run.spec
    summary = Summary(
        status=status,
        name=spec.name,
        seed=spec.seed,
        step=p.step,
        steps=run.steps,
        tokens=run.spending.tokens(p.step),
        flops=run.spending.flops(p.step),
        params=training.model.ledger(1).params,
        loss=p.smoothed,
        best_loss=p.best,
        seconds=round(p.seconds, 3),
        data={"label": run.source.label, "fingerprint": run.source.fingerprint},
        error=error,
    )
    write_json(run.folder / "summary.json", asdict(summary))
    return summary


def read_summary(folder: Path) -> Summary | None:
    """The summary of a run folder; None while it is not done."""
    path = folder / "summary.json"
    return parse(Summary, json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _check_data(spec: RunSpec, source: Source) -> None:
    own, needed = spec.model.vocab_size, source.vocab_size
    require(needed <= own, "model.vocab_size", own, f"the data has ids up to {needed - 1}", f"at least {needed}")
    streams = spec.train.state != "tbptt" or spec.data.get("mode") == "stream"
    require(streams, "train.state", "tbptt", "needs rows that go on from step to step", "data: {mode: stream}")


def _same_run(folder: Path, spec: RunSpec) -> None:
    """Raise ConfigError if the folder was made for another config."""
    path = folder / "config.yaml"
    if not path.exists():
        return
    old = load_yaml(path)
    found = first_difference(old, spec.resolved(spec.steps or old.get("steps", 0)))
    if found is not None:
        key, before, now = found
        raise ConfigError(key, now, f"{folder} holds a run with {before!r}", "choose another folder, or delete that one")


def _claim(folder: Path, resolved: dict[str, Any], source: Source) -> None:
    """Write what defines the run, or check that the data are still those it began with."""
    place = folder / "environment.json"
    data = {"label": source.label, "fingerprint": source.fingerprint, "vocab_size": source.vocab_size}
    if not place.exists():
        write_json(place, environment() | {"data": data})
    old = json.loads(place.read_text(encoding="utf-8"))["data"]
    if old != data:
        rule = f"{folder} was begun with other data, {old['fingerprint']}"
        raise ConfigError("data", data["fingerprint"], rule, "delete it to train anew")
    write_text(folder / "config.yaml", yaml.safe_dump(resolved, sort_keys=False))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No two processes train in one folder. The system frees the lock of a process that is killed."""
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
