"""One training step, free of any trainer: losses and gradients of a batch read in equal pieces."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from blocks import moe
from blocks.context import Routed
from train.config.run import TrainConfig
from train.trainer.expert_balance import add_up, auxiliary_loss, mixtures
from train.trainer.initial_state import Carry, step_seed
from zoo.model.model import IGNORE, Model


class Rows(NamedTuple):
    """What a step reads. b rows, t time."""

    inputs: Tensor  # (b, t) int64
    labels: Tensor  # (b, t) int64, -100 = not scored
    documents: Tensor | None  # (b, t) int64, a new document where the id changes; None = one a row

    def split(self, size: int) -> list[Rows]:
        """Pieces of `size` rows."""
        documents = [None] * (len(self.inputs) // size) if self.documents is None else self.documents.split(size)
        return [Rows(*piece) for piece in zip(self.inputs.split(size), self.labels.split(size), documents, strict=True)]

    def to(self, device: torch.device) -> Rows:
        return Rows(*(None if x is None else x.to(device) for x in self))  # type: ignore[arg-type]


class Gradients(NamedTuple):
    """What a step found besides the gradients."""

    loss: Tensor  # (): the mean cross-entropy over all labels
    states: list[Any]  # after each piece
    loads: dict[moe.Block, Tensor]  # of each mixture, how many tokens of the step chose each expert


def gradients(model: Model, rows: Rows, carry: Carry, config: TrainConfig, seed: int, step: int) -> Gradients:
    """Add the gradients of the mean loss over all labels of the step, and of the auxiliary losses of each piece, weighed as its labels are.

    Everything random is drawn from (seed, step): the step can be run again, alone, and gives the same bits.
    """
    seed_generator(step_seed(seed, step, "dropout"), rows.inputs.device)
    pieces = rows.split(config.batch_size)
    starts = carry.start(step, [piece.documents for piece in pieces])
    total, losses, states = (rows.labels != IGNORE).sum().clamp(min=1), [], []
    met, loads = mixtures(model), list[Tensor]()
    for piece, (state, documents) in zip(pieces, starts, strict=True):
        if documents is not None:
            documents = documents.expand_as(piece.inputs)
        calls: list[Routed] | None = [] if met else None
        with precision(config.precision, piece.inputs.device):
            loss, state = model.loss(piece.inputs, piece.labels, state, documents=documents, routed=calls)
            whole = loss + auxiliary_loss(calls) if calls else loss
        share = (piece.labels != IGNORE).sum().to(loss.dtype) / total if len(pieces) > 1 else 1.0
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
