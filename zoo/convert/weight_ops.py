"""The steps of a weight map: reversible moves of numbers between their tensors and ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Step(Protocol):
    """A reversible move of numbers between their tensors and ours."""

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]: ...

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]: ...


@dataclass(frozen=True)
class Concat:
    """Several of theirs in a row are one of ours; sizes: of theirs along the dimension."""

    sizes: tuple[int, ...]
    dim: int = 0

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        return [torch.cat(tensors, self.dim)]

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]:
        return list(tensors[0].split(list(self.sizes), self.dim))


@dataclass(frozen=True)
class Split:
    """One of theirs is several of ours in a row; sizes: of ours along the dimension."""

    sizes: tuple[int, ...]
    dim: int = 0

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        return list(tensors[0].split(list(self.sizes), self.dim))

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]:
        return [torch.cat(tensors, self.dim)]


@dataclass(frozen=True)
class Stack:
    """Several of theirs, all of one shape, are one of ours along a new first dimension (experts)."""

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        return [torch.stack(tensors)]

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]:
        return list(tensors[0])


@dataclass(frozen=True)
class Transpose:
    """Two dimensions change places (GPT-2 keeps its projections as (in, out))."""

    dims: tuple[int, int] = (0, 1)

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        return [t.transpose(*self.dims) if t.ndim > max(self.dims) else t for t in tensors]

    to_theirs = to_ours


@dataclass(frozen=True)
class Permute:
    """Entry i of ours along the dimension is entry order[i] of theirs (heads, channels)."""

    order: tuple[int, ...]
    dim: int = 0

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        return [t.index_select(self.dim, torch.tensor(self.order, device=t.device)) for t in tensors]

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]:
        return [t.index_select(self.dim, torch.tensor(self.order, device=t.device).argsort()) for t in tensors]


@dataclass(frozen=True)
class Squeeze:
    """Theirs has one more dimension, of size 1 (nn.Conv1d's depthwise filter (c, 1, taps) is our (c, taps))."""

    dim: int = 1

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        return [t.squeeze(self.dim) for t in tensors]

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]:
        return [t.unsqueeze(self.dim) for t in tensors]


@dataclass(frozen=True)
class Heads:
    """Theirs keeps heads in a dimension of their own: its (heads, rows, ...) is our (heads rows, ...)."""

    heads: int

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        return [t.flatten(0, 1) for t in tensors]

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]:
        return [t.unflatten(0, (self.heads, -1)) for t in tensors]


def ungrouped(groups: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """The order (of Permute) that makes part after part of what stands group after group, each group holding parts of these sizes."""
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(g * sum(sizes) + start + i for start, size in zip(starts, sizes, strict=True) for g in range(groups) for i in range(size))
