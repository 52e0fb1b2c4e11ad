"""Whole chunks at a time: the WY / UT form (DeltaNet, arXiv:2406.06484; Gated DeltaNet, arXiv:2412.06464; RWKV-7, arXiv:2503.14456).

Both operations are one recurrence, of rows that read (q for the output, a for what is corrected) and keys that write:

    delta   Y = v + S-^T a,  a = -k;   S = S- + (beta k) Y^T;   S- = diag(e^g) S_{t-1}
    dplr    Y = S_{t-1}^T a;           S = diag(e^w) S_{t-1} + k v^T + b Y^T

With G the sum of log decays from the chunk's start, S the state before it and (i, j) two of its tokens, rows read S decayed by
e^G and the keys written at j by A_ij = sum_d a_id k_jd e^(G_id - G_jd) for j < i (q: j <= i; dplr's a: G_i-1); `scalar` and `vector`
make these scores, `triangular` inverts I - A, `walk` carries the state, and `rule` puts them together.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.delta import rule
from kernels.delta.chunks import Layout
from kernels.delta.reference import start
from kernels.delta.rule import Arguments
from kernels.delta.scalar import scalar_flops
from kernels.delta.triangular import inverse_flops
from kernels.delta.vector import vector_flops
from kernels.delta.walk import walk_flops

CHUNK = 32


def delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    beta: Tensor,
    state: Tensor | None = None,
    *,
    reset: Tensor | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    layout = Layout.of(v, chunk or CHUNK)
    return _Rule.apply(layout, q, k, v, g, start(state, k, v), reset, beta, None, None)


def dplr(
    q: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor | None = None,
    *,
    reset: Tensor | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    layout = Layout.of(v, chunk or CHUNK)
    return _Rule.apply(layout, q, k, v, w, start(state, k, v), reset, None, a, b)


class _Rule(torch.autograd.Function):
    """(layout, *Arguments) -> o (b, t, h, v), the last state (b, h, k, v)."""

    @staticmethod
    def forward(ctx: Any, layout: Layout, *arguments: Tensor | None) -> tuple[Tensor, Tensor]:
        o, last, kept = rule.forward(layout, Arguments(*arguments))  # type: ignore[arg-type]
        ctx.save_for_backward(*arguments, *kept)
        ctx.layout = layout
        return o, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor, d_last: Tensor) -> tuple[Tensor | None, ...]:
        n = len(Arguments._fields)
        return None, *rule.backward(ctx.layout, Arguments(*ctx.saved_tensors[:n]), list(ctx.saved_tensors[n:]), do, d_last)


def delta_flops(length: int, heads: int, k: int, v: int, *, vector: bool, chunk: int | None = None) -> int:
    """FLOPs that FlopCounterMode counts in `delta`, where no chunk's decay is strong."""
    layout = Layout.sized(1, length, heads, chunk or CHUNK)
    c = layout.c
    scores = vector_flops(c, 1, k) if vector else scalar_flops(c, k)
    return layout.n * heads * (scores + inverse_flops(c) + walk_flops(c, 1, k, v))


def dplr_flops(length: int, heads: int, k: int, v: int, *, chunk: int | None = None) -> int:
    """FLOPs that FlopCounterMode counts in `dplr`, where no chunk's decay is strong."""
    layout = Layout.sized(1, length, heads, chunk or CHUNK)
    c = layout.c
    return layout.n * heads * (vector_flops(c, 2, k) + inverse_flops(c) + walk_flops(c, 2, k, v))
