"""The LightningModule of a run. It counts its own steps under manual optimisation, so that an interrupted run goes on at the same step."""

from __future__ import annotations

import math
from collections.abc import Iterator

import lightning.pytorch as pl
import torch

from blocks.state import map_state
from kernels.verify import verified
from train.config.run import RunConfig
from train.data import Batch, Source
from train.trainer.checkpoint import Checkpoint, Progress, damaged
from train.trainer.divergence import TrainingFailed, first_bad_layer, has_diverged, smooth
from train.trainer.expert_balance import spread
from train.trainer.initial_state import InitialStates
from train.trainer.lr_schedule import learning_rate
from train.trainer.optimiser import adamw, restore_optimiser, set_rate
from train.trainer.step import Gradients, clip, gradients
from zoo.model.model import Model


class Training(pl.LightningModule):
    """A model in training. Besides the weights, a step changes `progress`, `initial_states` and the optimiser, and nothing else."""

    def __init__(self, model: Model, run: RunConfig, steps: int, start: Checkpoint | None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.run, self.steps = model, run, steps
        self.initial_states = InitialStates(run.train, run.model, run.seed, steps)
        self.progress = Progress() if start is None else start.progress
        self.first_step = self.progress.step
        if start is not None and not 1 <= self.first_step <= steps:
            raise damaged("checkpoint/progress.json", f"it says step {self.first_step} of {steps}")
        self.start = start
        self.rate = self.norm = self.last_loss = 0.0
        self.spread: list[float] = []  # of a step's experts, see train.trainer.expert_balance; of a model without any: nothing
        self._parameters_list = list(model.parameters())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.optimiser = adamw(self.model, self.run.train)
        if self.start is not None:
            restore_optimiser(self.optimiser, self.model, self.start.optimiser, self.first_step)
            self.initial_states.restore(map_state(lambda x: x.to(self.device), self.start.initial_states))
            self.start = None
        return self.optimiser

    def transfer_batch_to_device(self, batch: tuple[int, Batch], device: torch.device, dataloader_idx: int) -> tuple[int, Batch]:
        return batch if device.type == "cpu" else (batch[0], batch[1].to(device))

    def training_step(self, batch: tuple[int, Batch], batch_idx: int) -> None:
        step, sequences = batch
        loss, states, loads = self._gradients(step, sequences)
        norm = clip(self._parameters_list, self.run.train.clip)
        measured = torch.stack([x.to(loss.dtype) for x in (loss, norm, *(spread(list(loads.values())) if loads else ()))])
        self.last_loss, self.norm, *self.spread = measured.tolist()  # the only wait for the device
        self.rate = learning_rate(self.run.train, step, self.steps)
        self._check(step, sequences)
        set_rate(self.optimiser, self.rate)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        for block, load in loads.items():
            block.rebalance(load)
        self.initial_states.keep(states)

    def _gradients(self, step: int, batch: Batch) -> Gradients:
        first = step == self.first_step and self.run.kernels.verify
        if first:
            with verified(), torch.compiler.set_stance("force_eager"):
                return gradients(self.model, batch, self.initial_states, self.run.train, self.run.seed, step)
        return gradients(self.model, batch, self.initial_states, self.run.train, self.run.seed, step)

    def _check(self, step: int, batch: Batch) -> None:
        """Raise TrainingFailed before a bad gradient reaches the weights."""
        what = f"the loss is {self.last_loss}" if not math.isfinite(self.last_loss) else f"the gradient's norm is {self.norm}"
        advice = f"A lower train.lr (now {self.run.train.lr:g}) or a longer train.warmup may help"
        if not math.isfinite(self.last_loss) or not math.isfinite(self.norm):
            layer = first_bad_layer(self.model, lambda: self._gradients(step, batch))
            raise TrainingFailed(step, what, layer, advice)
        smooth(self.progress, self.last_loss)
        if has_diverged(self.progress, self.run.train.diverged, self.run.model.vocab_size):
            reason = f"the smoothed loss is {self.progress.smoothed:.4g}, its best was {self.progress.best:.4g}"
            raise TrainingFailed(step, reason, None, f"{advice}; train.diverged: null never stops for this")


class Steps:
    """The batches of steps start .. stop-1."""

    def __init__(self, source: Source, run: RunConfig, start: int, stop: int) -> None:
        self.source, self.sequences, self.range = source, run.train.sequences_per_step, range(start, stop)

    def __len__(self) -> int:
        return len(self.range)

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        for step in self.range:
            yield step, self.source.batch(step, self.sequences)
