"""A run's output during training: metrics.csv, timings.csv, validation.csv, other loggers, checkpoints, the progress bar.

metrics.csv and validation.csv hold only what is the same in every repetition; how fast it went is in timings.csv.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from train.data import Batch
from train.plan.budget import Spending
from train.system.atomic_files import Table
from train.trainer.checkpoint import damaged, save
from train.trainer.expert_balance import mixtures
from train.trainer.module import Training
from train.trainer.optimiser import optimiser_tensors
from train.trainer.progress import Bar
from train.trainer.step import precision
from zoo.model.model import IGNORE, Model

METRICS = ("step", "tokens", "flops", "loss", "lr", "grad_norm")  # loss, grad_norm: means over the steps since the last row
EXPERTS = ("load_violation", "dead_experts")  # of mixtures of experts, means as well; see train.trainer.expert_balance.spread
TIMINGS = ("step", "seconds", "tokens_per_s", "gflops_per_s")  # seconds: in training steps, since the run began
VALIDATION = ("step", "tokens", "flops", "condition", "loss")
BAR_SECONDS = 0.1  # between updates of the bar


class Recorder(pl.Callback):
    """A Lightning callback that records every step of the run in `folder`."""

    def __init__(self, folder: Path, training: Training, spending: Spending, held_out: Mapping[str, Batch], bar: Bar | None) -> None:
        self.folder, self.spending, self.held_out, self.bar = folder, spending, held_out, bar
        self.train, step = training.run.train, training.progress.step
        self.experts = EXPERTS if mixtures(training.model) else ()
        self.metrics = Table(folder / "metrics.csv", (*METRICS, *self.experts), step)
        self.timings = Table(folder / "timings.csv", TIMINGS, step)
        self.validation = Table(folder / "validation.csv", VALIDATION, step) if self.train.validate_every else None
        self._check_rows(step, training.steps)
        self.logged = (step, training.progress.seconds)
        self.shown = 0.0

    def _check_rows(self, step: int, steps: int) -> None:
        """Raise ConfigError where the tables lack rows that they had at the checkpoint of `step`: nothing could write them again."""
        for table, every in ((self.metrics, self.train.log_every), (self.validation, self.train.validate_every)):
            if table is not None and every:
                conditions = len(self.held_out) if table is self.validation else 1
                expected = [n for n in range(1, step + 1) if n % every == 0 or n == steps for _ in range(conditions)]
                if table.steps != expected:
                    raise damaged(table.path, f"up to step {step} it has {len(table.steps)} rows, and should have {len(expected)}")

    def on_train_start(self, trainer: pl.Trainer, training: Training) -> None:  # type: ignore[override]
        self.clock = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, training: Training, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        progress, now = training.progress, time.perf_counter()
        progress.step += 1
        progress.pending += 1
        progress.loss_sum += training.last_loss
        progress.norm_sum += training.norm
        if self.experts:
            violation, dead = training.spread
            progress.violation_sum += violation
            progress.dead_sum += dead
        progress.seconds += now - self.clock
        last = progress.step == training.steps
        if last or progress.step % self.train.log_every == 0:
            self._log(trainer, training)
        if self.validation is not None and self.train.validate_every and (last or progress.step % self.train.validate_every == 0):
            self._validate(trainer, training)
        if last or progress.step % self.train.checkpoint_every == 0:
            self.checkpoint(training)
        if self.bar is not None and (last or now - self.shown > BAR_SECONDS):
            self.shown = now
            self.bar.update(progress.step, training.last_loss, training.rate, self._speed(progress.step, progress.seconds))
        self.clock = time.perf_counter()

    def _speed(self, step: int, seconds: float) -> float:
        """Tokens a second since the last row."""
        before, then = self.logged if step > self.logged[0] else (0, 0.0)
        return (self.spending.tokens(step) - self.spending.tokens(before)) / max(seconds - then, 1e-9)

    def _log(self, trainer: pl.Trainer, training: Training) -> None:
        p = training.progress
        values = {"loss": p.loss_sum / p.pending, "lr": training.rate, "grad_norm": p.norm_sum / p.pending}
        values |= dict(zip(self.experts, (p.violation_sum / p.pending, p.dead_sum / p.pending), strict=False))
        self.metrics.add(step=p.step, tokens=self.spending.tokens(p.step), flops=self.spending.flops(p.step), **values)
        speed = self._speed(p.step, p.seconds)
        gflops = (self.spending.flops(p.step) - self.spending.flops(self.logged[0])) / 1e9 / max(p.seconds - self.logged[1], 1e-9)
        self.timings.add(step=p.step, seconds=round(p.seconds, 3), tokens_per_s=round(speed, 1), gflops_per_s=round(gflops, 3))
        self._send(trainer, {**values, "tokens_per_s": speed}, p.step)
        p.loss_sum = p.norm_sum = p.violation_sum = p.dead_sum = 0.0
        p.pending = 0
        self.logged = (p.step, p.seconds)

    def _validate(self, trainer: pl.Trainer, training: Training) -> None:
        assert self.validation is not None
        step = training.progress.step
        for condition, loss in validation_losses(training.model, self.held_out, self.train.batch_size, self.train.precision).items():
            tokens, flops = self.spending.tokens(step), self.spending.flops(step)
            self.validation.add(step=step, tokens=tokens, flops=flops, condition=condition.replace(",", ";"), loss=loss)
            self._send(trainer, {f"validation/{condition}": loss}, step)

    def _send(self, trainer: pl.Trainer, values: dict[str, float], step: int) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(values, step)

    def checkpoint(self, training: Training) -> None:
        """Save everything that the run needs to go on from here."""
        for table in (self.metrics, self.timings, self.validation):
            if table is not None:
                table.sync()
        save(
            self.folder,
            training.model,
            optimiser_tensors(training.optimiser, training.model),
            training.initial_states.states,
            training.progress,
        )


@torch.no_grad()
def validation_losses(model: Model, held_out: Mapping[str, Batch], batch_size: int, precision_name: str = "fp32") -> dict[str, float]:
    """The mean loss (nats a label) of each condition, every sequence from the start of its text; the model's mode is left as it was."""
    was_training, losses = model.training, {}
    device = model.embedding.weight.device
    model.eval()
    for condition, batch in held_out.items():
        total = 0.0
        for at in range(0, len(batch.inputs), batch_size):
            part = Batch(*(None if x is None else x[at : at + batch_size] for x in batch)).to(device)  # type: ignore[arg-type]
            with precision(precision_name, device):
                nll, _ = model.nll(part.inputs, part.labels, documents=part.documents)
            total += float(nll.double().sum())
        losses[condition] = total / max(int((batch.labels != IGNORE).sum()), 1)
    model.train(was_training)
    return losses
