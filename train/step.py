"""One training step, free of any trainer: losses and gradients of a batch read in equal pieces."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from train.carry import Carry, step_seed
from train.config import TrainConfig
from zoo.model import IGNORE, Model


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


def gradients(model: Model, rows: Rows, carry: Carry, config: TrainConfig, seed: int, step: int) -> tuple[Tensor, list[Any]]:
    """Add the gradients of the mean loss over all labels of the step; the loss and the states after each piece.

    Everything random is drawn from (seed, step): the step can be run again, alone, and gives the same bits.
    """
    seed_generator(step_seed(seed, step, "dropout"), rows.inputs.device)
    pieces = rows.split(config.batch_size)
    starts = carry.start(step, [piece.documents for piece in pieces])
    total, losses, states = (rows.labels != IGNORE).sum().clamp(min=1), [], []
    for piece, (state, documents) in zip(pieces, starts, strict=True):
        if documents is not None:
            documents = documents.expand_as(piece.inputs)
        with precision(config.precision, piece.inputs.device):
            loss, state = model.loss(piece.inputs, piece.labels, state, documents=documents)
        if len(pieces) > 1:
            loss = loss * ((piece.labels != IGNORE).sum().to(loss.dtype) / total)
        loss.backward()
        losses.append(loss.detach())
        states.append(state)
    return torch.stack(losses).sum(), states


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
