"""Whole chunks at once. Decays are only ever multiplied, never divided by, so strong decay is as exact as weak.

The recurrence itself is walked token by token, one fused multiply-add in place a token: on a CPU that beats the log-depth
scans, which pass over memory log2(length) times.
"""

import math

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from kernels.dtypes import LOG2E, wide
from kernels.linear_scan.selective import SelectiveScan
from kernels.linear_scan.walk import scan, scan_back

SIDE_BY_SIDE = 2**13  # entries that one step of linear_scan should touch to be worth its dispatch
TILE = 2**17  # state entries in a chunk of selective_scan: a few such buffers stay in a core's cache
LEAST = 8  # tokens in a chunk, however large the tile: the backward keeps one state a chunk


def linear_scan(
    a: Tensor, x: Tensor, state: Tensor | None = None, *, reset: Tensor | None = None, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    b, t, c = x.shape
    x = wide(x)
    start = x.new_zeros(b, c) if state is None else state.to(x.dtype)
    if chunk is None:
        chunk = math.ceil(t / max(1, min(math.isqrt(t), SIDE_BY_SIDE // (b * c))))
    h = LinearScan.apply(a.to(x.dtype), x, start, reset, chunk)
    return h, h[:, -1].clone()


class LinearScan(torch.autograd.Function):
    """(a, x, start, reset, chunk) -> h, as in the public function. Its gradient is the same recurrence, backwards in time."""

    @staticmethod
    def forward(ctx: FunctionCtx, a: Tensor, x: Tensor, start: Tensor, reset: Tensor | None, chunk: int) -> Tensor:
        decay = torch.mul(a, LOG2E).exp2_()
        if reset is not None:
            decay.masked_fill_(reset[..., None], 0)
        h = scan(decay, x, start, chunk)
        ctx.save_for_backward(decay, h, start)
        ctx.chunk = chunk  # type: ignore[attr-defined]
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dh: Tensor) -> tuple[Tensor | None, ...]:
        decay, h, start = ctx.saved_tensors  # type: ignore[attr-defined]
        dx = scan_back(decay, dh, ctx.chunk)  # type: ignore[attr-defined]
        da = dx * decay
        dstart = da[:, 0].clone()
        da[:, 1:] *= h[:, :-1]
        da[:, 0] *= start
        return da, dx, dstart, None, None


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor | None = None,
    *,
    more: Tensor | None = None,
    reset: Tensor | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    b, _, c = x.shape
    n, dtype = A.shape[1], wide(x).dtype
    timed = [i.to(dtype).transpose(0, 1).contiguous() for i in (x, dt, B, C)]  # a token is contiguous, channels last
    start = x.new_zeros(b, n, c, dtype=dtype) if state is None else state.to(dtype).transpose(1, 2).contiguous()
    keep = None if reset is None else (~reset).to(dtype)
    if more is not None:
        keep = more.to(dtype).exp() if keep is None else more.to(dtype).exp() * keep
    keep = None if keep is None else keep.t()[..., None, None]
    chunk = max(LEAST, TILE // (b * c * n)) if chunk is None else chunk
    y, after = SelectiveScan.apply(*timed, A.to(dtype).t().contiguous(), start, keep, chunk, torch.is_grad_enabled())
    return y.transpose(0, 1).to(x.dtype), after.transpose(1, 2).contiguous()
