"""The state distribution: initial recurrent states sampled from normal distributions, tensor by tensor (Ruiz & Gu, arXiv:2507.02782).

    noise     mean 0 and the standard deviation `state_noise` for every tensor
    fitted    mean and variance of the final states of earlier steps: of each head of a matrix state (b, h, k, v), of each other tensor;
              a plain mean over the first FITTED steps, then an exponential one, since the model goes on learning

A branch with an attention cache starts empty: sampled keys would stand for no tokens. So does a branch whose state holds whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from blocks.keys import Keys
from blocks.state import state_tensors

FITTED = 20  # steps that the fitted mean remembers
MATRIX = 4  # dimensions of a matrix state (b, h, k, v)


class Normal(NamedTuple):
    """The distribution of one tensor of a state, each with the shape of one sequence, (1, ...)."""

    mean: Tensor
    var: Tensor


class StateDistribution(NamedTuple):
    """The distributions of the tensors of a state, after `steps` training steps."""

    steps: int  # that they were fitted on
    layers: Any  # as a state's layers: a Normal for each tensor; None for a branch that starts empty


def recurrent(state: Any) -> bool:
    """Whether every tensor of a block's state can be sampled: floating point, and no attention cache."""
    tensors = state_tensors(state)
    caches = pytree.tree_leaves(state, is_leaf=_is_cache)
    return bool(tensors) and all(x.is_floating_point() for x in tensors) and not any(map(_is_cache, caches))


def fixed(layers: Sequence[Any], sigma: float) -> StateDistribution:
    """The distribution of `noise`: mean 0, standard deviation `sigma`, in the shapes of these states."""
    return StateDistribution(1, _map(lambda x: Normal(torch.zeros_like(x[:1]), torch.full_like(x[:1], sigma**2)), layers))


def fitted(before: StateDistribution | None, layers: Sequence[Any]) -> StateDistribution:
    """The distribution of `fitted` after one more step. layers: its final states, one tree for each micro-batch."""
    now = pytree.tree_map(_fit, *layers)
    if before is None:
        return StateDistribution(1, now)
    share = 1 / min(before.steps + 1, FITTED)
    mixed = pytree.tree_map(lambda a, b: _mix(a, b, share), before.layers, now, is_leaf=_is_normal)
    return StateDistribution(before.steps + 1, mixed)


def sample(distribution: StateDistribution, sequences: int, generator: torch.Generator) -> Any:
    """The layers' states of so many sequences, sampled."""
    return pytree.tree_map(lambda d: _sample(d, sequences, generator) if _is_normal(d) else d, distribution.layers, is_leaf=_is_normal)


def _map(fn: Any, layers: Any) -> Any:
    return pytree.tree_map_only(Tensor, fn, layers)


def _fit(*tensors: Any) -> Any:
    """The Normal of the same tensor in several micro-batches."""
    if not isinstance(tensors[0], Tensor):
        return tensors[0]
    x = torch.cat([t.detach() for t in tensors])
    over = [i for i in range(x.ndim) if i != 1 or x.ndim != MATRIX]
    mean, var = x.mean(over, keepdim=True), x.var(over, correction=0, keepdim=True)
    return Normal(mean.expand_as(x[:1]).contiguous(), var.expand_as(x[:1]).contiguous())


def _mix(old: Any, new: Any, share: float) -> Any:
    """Mean and variance of a mixture, `share` of it new."""
    if not isinstance(old, Normal):
        return old
    step = new.mean - old.mean
    return Normal(old.mean + share * step, (1 - share) * (old.var + share * step.square()) + share * new.var)


def _sample(normal: Normal, sequences: int, generator: torch.Generator) -> Tensor:
    noise = torch.randn(sequences, *normal.mean.shape[1:], generator=generator, dtype=normal.mean.dtype)
    return normal.mean + normal.var.sqrt() * noise.to(normal.mean.device)


def _is_normal(value: Any) -> bool:
    return isinstance(value, Normal)


def _is_cache(value: Any) -> bool:
    return isinstance(value, Keys)
