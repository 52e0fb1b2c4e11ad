"""Tiles without a gate or with one scalar a head: scores once a group, each head's decay as a mask on them (arXiv:2405.21060)."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.decay.tiles import Within
from kernels.dtypes import LOG2E

FLOOR = -120.0  # in powers of two: below it a decay counts as this small, and stays clear of denormal numbers


class _PairDecay(torch.autograd.Function):
    """2^(rows_i - columns_j) in `dtype` where `seen`, else 0. rows, columns (..., i) are float64: a difference of long sums in
    float32 would lose the digits that matter. Only the result is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor, seen: Tensor, dtype: torch.dtype) -> Tensor:
        power = (rows[..., :, None] - columns[..., None, :]).to(dtype).clamp_(FLOOR, 0)
        result = power.exp2_().mul_(seen)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        (result,) = ctx.saved_tensors
        power = grad * result
        rows, columns = power.sum(-1, dtype=torch.float64), power.sum(-2, dtype=torch.float64)
        return rows / LOG2E, -columns / LOG2E, None, None


def within(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, bonus: Tensor | None, segment: Tensor | None) -> Within:
    """q, k (b, c, n, i, k); v (b, c, n, i, r, v); g (b, c, n, i, r) or None; bonus (n, r, k); segment (b, c, i)."""
    size = q.shape[3]
    scores = (q @ k.mT)[:, :, :, None]  # (b, c, n, 1, i, j)
    seen = _seen(size, segment, strict=bonus is not None, like=q)
    heads = v.transpose(-2, -3)  # (b, c, n, r, i, v)
    if g is None:
        inner = ((scores * seen)[:, :, :, 0] @ v.flatten(-2)).unflatten(-1, v.shape[-2:])
        enter = carry = leave = None
    else:
        after = (g.double() * LOG2E).cumsum(3).transpose(3, 4)  # (b, c, n, r, i)
        rows = after if bonus is None else after - g.double().transpose(3, 4) * LOG2E
        pairs = _PairDecay.apply(rows, after, seen, q.dtype)
        inner = ((scores * pairs) @ heads).transpose(-2, -3)
        enter, leave, carry = (_power(x, q.dtype) for x in (rows, after[..., -1:] - after, after[..., -1:]))
    if bonus is not None:
        diagonal = ((q * k)[..., None, :] * bonus[:, None]).sum(-1, keepdim=True)  # (b, c, n, i, r, 1)
        inner = inner + diagonal * v
    if segment is not None:
        started, last = segment[:, :, None, :, None, None], segment[:, :, None, -1:, None, None]
        enter, leave, carry = (_times(x, m) for x, m in ((enter, started == 0), (leave, started == last), (carry, last == 0)))
    return Within(inner, q, enter, k, v if leave is None else v * leave, carry)


def _seen(size: int, segment: Tensor | None, *, strict: bool, like: Tensor) -> Tensor:
    """(i, j) or (b, c, 1, 1, i, j): 1 where token i sees token j of its tile."""
    seen = like.new_ones(size, size).tril(-1 if strict else 0)
    if segment is None:
        return seen
    return seen * (segment[..., :, None] == segment[..., None, :])[:, :, None, None]


def _power(x: Tensor, dtype: torch.dtype) -> Tensor:
    """2^x of (b, c, n, r, i), as (b, c, n, i, r, 1)."""
    return x.to(dtype).clamp(min=FLOOR).exp2().transpose(3, 4)[..., None]


def _times(x: Tensor | None, mask: Tensor) -> Tensor:
    return mask if x is None else x * mask
