"""States as values: trees of tensors (NamedTuples, tuples, lists, dicts, None)."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import Tensor
from torch.utils import _pytree as pytree

S = TypeVar("S")


def map_state(fn: Any, state: S) -> S:
    """Apply fn to every tensor of a state (None stays None)."""
    return pytree.tree_map_only(Tensor, fn, state)


def detach(state: S) -> S:
    """The same state, cut from the graph."""
    return map_state(lambda t: t.detach(), state)


def state_tensors(state: Any) -> list[Tensor]:
    """Every tensor that a state holds."""
    return [leaf for leaf in pytree.tree_leaves(state) if isinstance(leaf, Tensor)]


def state_bytes(state: Any) -> int:
    """The bytes that a state's tensors really hold."""
    return sum(t.numel() * t.element_size() for t in state_tensors(state))
