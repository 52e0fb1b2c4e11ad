"""Moves padding from anywhere in a sequence to its start, where blocks expect it, and the outputs back."""

import torch
from torch import Tensor


def leading(padding: Tensor | None) -> Tensor | None:
    """(b, t) int64: the order of tokens that puts padding first and keeps the rest in order; None if it is there already."""
    if padding is None or bool((padding[:, 1:] <= padding[:, :-1]).all()):
        return None
    return torch.argsort((~padding).int(), dim=1, stable=True)


def restore(x: Tensor, order: Tensor) -> Tensor:
    """x (b, t, d), ordered by `leading`, in the caller's order again."""
    return torch.zeros_like(x).scatter(1, order[..., None].expand_as(x), x)
