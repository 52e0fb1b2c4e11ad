"""Which cores and which keys a query sees: one interval of each."""

from typing import NamedTuple

import torch
from torch import Tensor


class Sight(NamedTuple):
    """For each query (b, t) int64: cores first .. stop - 1, and keys low .. high - 1, as indexes into the arrays of a call."""

    first: Tensor
    stop: Tensor
    low: Tensor
    high: Tensor


def boundary(position: int, group: int, local: int) -> int:
    """B: the token at `position` sees what lies before B by its cores."""
    return group * max(0, (position + 1 - local) // group)


def sight(positions: Tensor, group: int, local: int, documents: Tensor | None, core_documents: Tensor | None, keys: int) -> Sight:
    """The intervals of the queries at `positions` (b, t), the last of `keys` keys. A document's tokens are consecutive keys, so
    the last x + 1 - B keys up to the query are those that the token at position x sees."""
    bound = ((positions + 1 - local).div(group, rounding_mode="floor").clamp(min=0)) * group
    high = torch.arange(keys - positions.shape[1] + 1, keys + 1, device=positions.device).expand_as(positions)
    low = high - (positions + 1 - bound)
    if documents is None or core_documents is None:
        return Sight(torch.zeros_like(bound), bound // group, low, high)
    first = torch.searchsorted(core_documents.contiguous(), documents.contiguous())
    real = documents >= 0
    return Sight(first, torch.where(real, first + bound // group, first), torch.where(real, low, high), high)
