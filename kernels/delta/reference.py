"""The definitions: one token at a time. Every product is an explicit matmul, so that a FLOP counter counts exactly `flops`."""

import torch
from torch import Tensor

from kernels.dtypes import wide


def start(state: Tensor | None, k: Tensor, v: Tensor) -> Tensor:
    """The state (b, h, k, v) that a piece begins with, at least in float32."""
    b, _, h, width = k.shape
    return wide(v.new_zeros(b, h, width, v.shape[-1]) if state is None else state)


def _forget(s: Tensor, new: Tensor) -> Tensor:
    """The state with the rows zeroed whose document begins here. s (b, h, k, v), new (b,) bool."""
    return s.masked_fill(new[:, None, None, None], 0)


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
    dtype, s, out = v.dtype, start(state, k, v), []
    q, k, v, beta = wide(q), wide(k), wide(v), wide(beta)
    decay = None if g is None else wide(g).exp() if g.ndim == 4 else wide(g).exp()[..., None]
    for i in range(q.shape[1]):
        if reset is not None:
            s = _forget(s, reset[:, i])
        if decay is not None:
            s = s * decay[:, i, :, :, None]
        error = v[:, i, :, None] - k[:, i, :, None] @ s
        s = s + k[:, i, :, :, None] @ (beta[:, i, :, None, None] * error)
        out.append((q[:, i, :, None] @ s)[:, :, 0])
    return torch.stack(out, 1).to(dtype), s


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
    dtype, s, out = v.dtype, start(state, k, v), []
    q, k, v, a, b, decay = wide(q), wide(k), wide(v), wide(a), wide(b), wide(w).exp()
    for i in range(q.shape[1]):
        if reset is not None:
            s = _forget(s, reset[:, i])
        low_rank = b[:, i, :, :, None] @ (a[:, i, :, None] @ s)
        s = s * decay[:, i, :, :, None] + low_rank + k[:, i, :, :, None] @ v[:, i, :, None]
        out.append((q[:, i, :, None] @ s)[:, :, 0])
    return torch.stack(out, 1).to(dtype), s
