"""The steps of a weight map: reversible moves of numbers between tensors of a checkpoint (hf) and of the zoo's model (zoo)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Step(Protocol):
    """A reversible move of numbers between tensors of hf and of zoo."""

    def to_zoo(self, tensors: list[Tensor]) -> list[Tensor]: ...

    def to_hf(self, tensors: list[Tensor]) -> list[Tensor]: ...


@dataclass(frozen=True)
class Concat:
    """Several tensors of hf in a row are one of zoo; sizes: of those of hf along the dimension."""

    sizes: tuple[int, ...]
    dim: int = 0

    def to_zoo(self, tensors: list[Tensor]) -> list[Tensor]:
        return [torch.cat(tensors, self.dim)]

    def to_hf(self, tensors: list[Tensor]) -> list[Tensor]:
        return list(tensors[0].split(list(self.sizes), self.dim))


@dataclass(frozen=True)
class Split:
    """One tensor of hf is several of zoo in a row; sizes: of those of zoo along the dimension."""

    sizes: tuple[int, ...]
    dim: int = 0

    def to_zoo(self, tensors: list[Tensor]) -> list[Tensor]:
        return list(tensors[0].split(list(self.sizes), self.dim))

    def to_hf(self, tensors: list[Tensor]) -> list[Tensor]:
        return [torch.cat(tensors, self.dim)]


@dataclass(frozen=True)
class Stack:
    """Several tensors of hf, all of one shape, are one of zoo along a new first dimension (experts)."""

    def to_zoo(self, tensors: list[Tensor]) -> list[Tensor]:
        return [torch.stack(tensors)]

    def to_hf(self, tensors: list[Tensor]) -> list[Tensor]:
        return list(tensors[0])


@dataclass(frozen=True)
class Transpose:
    """Two dimensions change places (GPT-2 keeps its projections as (in, out))."""

    dims: tuple[int, int] = (0, 1)

    def to_zoo(self, tensors: list[Tensor]) -> list[Tensor]:
        return [t.transpose(*self.dims) if t.ndim > max(self.dims) else t for t in tensors]

    to_hf = to_zoo


@dataclass(frozen=True)
class Permute:
    """Entry i of zoo's tensor along the dimension is entry order[i] of hf's (heads, channels)."""

    order: tuple[int, ...]
    dim: int = 0

    def to_zoo(self, tensors: list[Tensor]) -> list[Tensor]:
        return [t.index_select(self.dim, torch.tensor(self.order, device=t.device)) for t in tensors]

    def to_hf(self, tensors: list[Tensor]) -> list[Tensor]:
        return [t.index_select(self.dim, torch.tensor(self.order, device=t.device).argsort()) for t in tensors]


@dataclass(frozen=True)
class Squeeze:
    """hf has one more dimension, of size 1 (nn.Conv1d's depthwise filter (c, 1, taps) is zoo's (c, taps))."""

    dim: int = 1

    def to_zoo(self, tensors: list[Tensor]) -> list[Tensor]:
        return [t.squeeze(self.dim) for t in tensors]

    def to_hf(self, tensors: list[Tensor]) -> list[Tensor]:
        return [t.unsqueeze(self.dim) for t in tensors]


@dataclass(frozen=True)
class Heads:
    """hf keeps heads in a dimension: its (heads, rows, ...) is zoo's (heads rows, ...)."""

    heads: int

    def to_zoo(self, tensors: list[Tensor]) -> list[Tensor]:
        return [t.flatten(0, 1) for t in tensors]

    def to_hf(self, tensors: list[Tensor]) -> list[Tensor]:
        return [t.unflatten(0, (self.heads, -1)) for t in tensors]


def ungrouped(groups: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """The order (of Permute) that makes part after part of what stands group after group, each group holding parts of these sizes."""
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(g * sum(sizes) + start + i for start, size in zip(starts, sizes, strict=True) for g in range(groups) for i in range(size))
