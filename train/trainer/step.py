"""One training step, independent of Lightning: loss and gradients of a batch read in micro-batches of equal size."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from blocks import moe
from blocks.context import Routed
from train.config.run import TrainConfig
from train.data import Batch
from train.trainer.expert_balance import add_up, auxiliary_loss, mixtures
from train.trainer.initial_state import InitialStates, step_seed
from zoo.model.model import IGNORE, Model


class Gradients(NamedTuple):
    """What a step returns besides the gradients, which are in the parameters."""

    loss: Tensor  # (): the mean cross-entropy over all labels
    states: list[Any]  # of each micro-batch, at its end
    loads: dict[moe.Block, Tensor]  # of each mixture, how many tokens of the step chose each expert


def gradients(model: Model, batch: Batch, initial: InitialStates, config: TrainConfig, seed: int, step: int) -> Gradients:
    """Add the gradients of the mean loss over all labels of the step and of the micro-batches' auxiliary losses, weighted by their labels.

    Everything random is drawn from (seed, step): the step can be run again, alone, and gives the same bits.
    """
    seed_generator(step_seed(seed, step, "dropout"), batch.inputs.device)
    parts = batch.split(config.batch_size)
    starts = initial.of_step(step, [part.documents for part in parts])
    total, losses, states = (batch.labels != IGNORE).sum().clamp(min=1), [], []
    met, loads = mixtures(model), list[Tensor]()
    for part, (state, documents) in zip(parts, starts, strict=True):
        if documents is not None:
            documents = documents.expand_as(part.inputs)
        calls: list[Routed] | None = [] if met else None
        with precision(config.precision, part.inputs.device):
            loss, state = model.loss(part.inputs, part.labels, state, documents=documents, routed=calls)
            whole = loss + auxiliary_loss(calls) if calls else loss
        share = (part.labels != IGNORE).sum().to(loss.dtype) / total if len(parts) > 1 else 1.0
        (whole * share).backward()
        losses.append(loss.detach() * share)
        states.append(state)
        loads += [call.load for call in calls or ()]
    return Gradients(torch.stack(losses).sum(), states, add_up(met, loads))


def seed_generator(seed: int, device: torch.device) -> None:
    """Seed what draws on the device. (torch.manual_seed keeps a stack trace a call for every accelerator that is not there.)"""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def precision(name: str, device: torch.device) -> AbstractContextManager[Any]:
    """fp32: as it is; bf16: autocast."""
    return torch.autocast(device.type, torch.bfloat16) if name == "bf16" else nullcontext()


def clip(parameters: list[torch.nn.Parameter], limit: float | None) -> Tensor:
    """The norm of the whole gradient, which is scaled down to `limit` if longer."""
    with_gradient = [p for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in with_gradient if p.grad is not None])
    if limit is not None:
        torch.nn.utils.clip_grads_with_norm_(with_gradient, limit, norm)
    return norm
