"""Training of one run: plan, train or go on, and a folder from which everything can be read again.

    config.yaml        all that defines the run, every default written out
    metrics.csv        step, tokens, flops, loss, lr, grad_norm, with experts load_violation, dead_experts: the same in every repetition
                       on a CPU
    timings.csv        seconds, tokens_per_s, gflops_per_s
    validation.csv     held-out losses, if validate_every is set
    checkpoint/        see train.trainer.checkpoint
    summary.json       status done or failed, and the end of the run
    environment.json   versions, machine, commit, the data's fingerprint

Killed at any instant and started again, a run goes on from its checkpoint and ends with the same weights and rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blocks.errors import ConfigError, require
from kernels import BackendError, backend
from train.config.run import KernelsConfig, RunConfig
from train.data import Source, open_source
from train.data.vocabulary import check_vocabulary
from train.plan.budget import Spending
from train.plan.initial_weights import first_model, plan_init
from train.run.folder import Failure, Summary, check_same_run, locked, read_summary, write_definition
from train.system.atomic_files import write_json
from train.trainer.checkpoint import begun, restore
from train.trainer.divergence import TrainingFailed
from train.trainer.progress import Bar
from zoo.model.model import build
from zoo.weights.safetensors_io import put_weights


@contextmanager
def served_by(kernels: KernelsConfig) -> Iterator[None]:
    """Operations inside this `with` are computed as the config says. Raises ConfigError if its backend can't serve one."""
    try:
        with backend(kernels.backend):
            yield
    except BackendError as error:
        raise ConfigError("kernels.backend", kernels.backend, str(error), "auto takes what fits") from None


def train_run(run: RunConfig, folder: Path, *, source: Source | None = None, progress: Bar | None = None) -> Summary:
    """Train the run in its folder, or go on with it, or return at once if it is done.

    source: the data, if it is open already (drawn with run.seed). progress: told how the run gets on.
    Raises ConfigError if the run can't be trained or the folder holds another one, TrainingFailed if it went wrong (now or before),
    KernelError if kernels.verify finds an operation that differs from its reference: nothing is written then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        check_same_run(folder, run)
        summary = read_summary(folder)
        if summary is not None:
            if summary.error is not None:
                raise summary.error.exception()
            return summary
        source = open_source(run.data, run.seed) if source is None else source
        _check_data(run, source)
        if not begun(folder):  # a run with a checkpoint needs `init` no more
            plan_init(run)
        write_definition(folder, run, source)
        return _train(_Opened(run, folder, source, Spending(run.model, source.lengths, run.train.sequences_per_step)), progress)


@dataclass(frozen=True)
class _Opened:
    """A run that is being trained: its config, its folder, its data and what its steps cost."""

    config: RunConfig
    folder: Path
    source: Source
    spending: Spending


def _train(run: _Opened, bar: Bar | None) -> Summary:
    from train.trainer.fit import fit  # Lightning takes seconds to import: only where something is trained
    from train.trainer.module import Training

    config, checkpoint = run.config, restore(run.folder)
    if checkpoint is None:
        model = first_model(config)
    else:
        model = build(config.model, config.seed)
        put_weights(model, checkpoint.model, str(run.folder))
    training = Training(model, config, config.steps, checkpoint)
    try:
        with served_by(config.kernels):
            fit(training, run.folder, run.source, run.spending, bar)
    except TrainingFailed as failure:
        saved = restore(run.folder)
        kept = f"the checkpoint of step {saved.progress.step} is kept" if saved is not None else "no checkpoint was written yet"
        error = Failure(failure.step, failure.reason, failure.layer, f"{failure.advice}; {kept}; delete {run.folder} to train it anew")
        _write_summary(run, training, "failed", error)
        raise error.exception() from None
    return _write_summary(run, training, "done", None)


def _write_summary(run: _Opened, training: Any, status: str, error: Failure | None) -> Summary:
    p = training.progress
    summary = Summary(
        status=status,
        name=run.config.name,
        seed=run.config.seed,
        step=p.step,
        steps=run.config.steps,
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


def _check_data(run: RunConfig, source: Source) -> None:
    check_vocabulary(source, run.model.vocab_size, "model.vocab_size", f"at least {source.vocab_size}")
    streams = run.train.state != "tbptt" or run.data.get("mode") == "stream"
    require(streams, "train.state", "tbptt", "needs rows that go on from step to step", "data: {mode: stream}")
