"""The LightningModule of a run: our step under manual optimisation, counted by ourselves so that a run goes on where it was."""

from __future__ import annotations

import math
from collections.abc import Iterator

import lightning.pytorch as pl
import torch

from blocks.state import map_state
from kernels.verify import verified
from train.config.run import RunConfig
from train.data import Source
from train.trainer.checkpoint import Checkpoint, Progress
from train.trainer.divergence import TrainingFailed, first_bad_layer, has_diverged, smooth
from train.trainer.expert_balance import spread
from train.trainer.initial_state import Carry
from train.trainer.lr_schedule import learning_rate
from train.trainer.optimiser import adamw, restore_optimiser, set_rate
from train.trainer.step import Gradients, Rows, clip, gradients
from zoo.model.model import Model


class Training(pl.LightningModule):
    """A model in training. `progress`, `carry` and the optimiser are all that a step changes besides the weights."""

    def __init__(self, model: Model, spec: RunConfig, steps: int, start: Checkpoint | None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.spec, self.steps = model, spec, steps
        self.carry = Carry(spec.train, spec.model, spec.seed, steps)
        self.progress = Progress() if start is None else start.progress
        self.first_step = self.progress.step
        self.start = start
        self.rate = self.norm = self.last_loss = 0.0
        self.spread: list[float] = []  # of a step's experts, see train.trainer.expert_balance; of a model without any: nothing
        self._parameters_list = list(model.parameters())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.optimiser = adamw(self.model, self.spec.train)
        if self.start is not None:
            restore_optimiser(self.optimiser, self.model, self.start.optimiser)
            self.carry.states = map_state(lambda x: x.to(self.device), self.start.carried)
            self.start = None
        return self.optimiser

    def transfer_batch_to_device(self, batch: tuple[int, Rows], device: torch.device, dataloader_idx: int) -> tuple[int, Rows]:
        return batch if device.type == "cpu" else (batch[0], batch[1].to(device))

    def training_step(self, batch: tuple[int, Rows], batch_idx: int) -> None:
        step, rows = batch
        loss, states, loads = self._gradients(step, rows)
        norm = clip(self._parameters_list, self.spec.train.clip)
        found = torch.stack([x.to(loss.dtype) for x in (loss, norm, *(spread(list(loads.values())) if loads else ()))])
        self.last_loss, self.norm, *self.spread = found.tolist()  # the only wait for the device
        self.rate = learning_rate(self.spec.train, step, self.steps)
        self._check(step, rows)
        set_rate(self.optimiser, self.rate)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        for block, load in loads.items():
            block.rebalance(load)
        self.carry.keep(states)

    def _gradients(self, step: int, rows: Rows) -> Gradients:
        first = step == self.first_step and self.spec.kernels.verify
        if first:
            with verified(), torch.compiler.set_stance("force_eager"):
                return gradients(self.model, rows, self.carry, self.spec.train, self.spec.seed, step)
        return gradients(self.model, rows, self.carry, self.spec.train, self.spec.seed, step)

    def _check(self, step: int, rows: Rows) -> None:
        """Raise TrainingFailed before a bad gradient reaches the weights."""
        what = f"the loss is {self.last_loss}" if not math.isfinite(self.last_loss) else f"the gradient's norm is {self.norm}"
        advice = f"A lower train.lr (now {self.spec.train.lr:g}) or a longer train.warmup may help"
        if not math.isfinite(self.last_loss) or not math.isfinite(self.norm):
            layer = first_bad_layer(self.model, lambda: self._gradients(step, rows))
            raise TrainingFailed(step, what, layer, advice)
        smooth(self.progress, self.last_loss)
        if has_diverged(self.progress, self.spec.train.diverged, self.spec.model.vocab_size):
            reason = f"the smoothed loss is {self.progress.smoothed:.4g}, its best was {self.progress.best:.4g}"
            raise TrainingFailed(step, reason, None, f"{advice}; train.diverged: null never stops for this")


class Steps:
    """The batches of steps start .. stop-1."""

    def __init__(self, source: Source, spec: RunConfig, start: int, stop: int) -> None:
        self.source, self.sequences, self.range = source, spec.train.sequences_per_step, range(start, stop)

    def __len__(self) -> int:
        return len(self.range)

    def __iter__(self) -> Iterator[tuple[int, Rows]]:
        for step in self.range:
            batch = self.source.batch(step, self.sequences)
            yield step, Rows(batch.inputs, batch.labels, batch.documents)
