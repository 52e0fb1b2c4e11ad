"""Mixtures of experts in training: their auxiliary losses, the load of their experts, and the biases that no gradient moves.

A forward leaves one blocks.context.Routed a call; the calls of one forward come in the stack's order, those of a shared block several
times.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import torch
from torch import Tensor

from blocks import moe
from blocks.context import Routed
from zoo.model.model import Model


def mixtures(model: Model) -> list[moe.Block]:
    """The mixtures of experts in the order in which a forward meets them, a shared one each time."""
    stack = model.stack
    entries = [stack.blocks[key] for keys in stack.layers for key in keys]
    return [block for block in entries if isinstance(block, moe.Block)]


def auxiliary_loss(routed: Sequence[Routed]) -> Tensor:
    """The mean over all calls."""
    return torch.stack([call.loss for call in routed]).mean()


def add_up(met: Sequence[moe.Block], loads: Sequence[Tensor]) -> dict[moe.Block, Tensor]:
    """The load (n_experts,) of each block, from those of the calls of any number of forwards that met these blocks in turn."""
    total: dict[moe.Block, Tensor] = {}
    for block, load in zip(cycle(met), loads, strict=False):
        total[block] = total[block] + load if block in total else load
    return total


def violation(load: Tensor) -> Tensor:
    """How far the busiest expert is above the mean, in means (MaxVio of arXiv:2408.15664): 0 = even."""
    return load.max() / load.mean().clamp(min=torch.finfo(load.dtype).tiny) - 1


def spread(loads: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The mean violation of all blocks, and the share of all experts that no token chose."""
    return torch.stack([violation(load) for load in loads]).mean(), (torch.cat(list(loads)) == 0).to(loads[0].dtype).mean()
