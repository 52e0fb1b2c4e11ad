"""The definitions: one token at a time."""

import torch
from torch import Tensor

from kernels.dtypes import wide


def linear_scan(
    a: Tensor, x: Tensor, state: Tensor | None = None, *, reset: Tensor | None = None, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    del chunk  # one token at a time
    h = wide(x.new_zeros(x.shape[0], x.shape[2])) if state is None else wide(state)
    kept = [None] * x.shape[1] if reset is None else (~reset).unbind(1)
    out = []
    for at, xt, keep in zip(wide(a).unbind(1), wide(x).unbind(1), kept, strict=True):
        h = at.exp() * (h if keep is None else h * keep[:, None]) + xt
        out.append(h)
    return torch.stack(out, 1), h


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
    del chunk
    h = wide(x.new_zeros(x.shape[0], *A.shape)) if state is None else wide(state)
    kept = [None] * x.shape[1] if reset is None else (~reset).unbind(1)
    faster = [None] * x.shape[1] if more is None else wide(more)[..., None, None].unbind(1)
    out = []
    with torch.autocast(x.device.type, enabled=False):
        steps = zip(*(wide(i).unbind(1) for i in (x, dt, B, C)), kept, faster, strict=True)
        for xt, dtt, Bt, Ct, keep, m in steps:
            log_decay = dtt[..., None] * wide(A)
            h = (log_decay if m is None else log_decay + m).exp() * (h if keep is None else h * keep[:, None, None])
            h = h + (dtt * xt)[..., None] @ Bt[:, None]
            out.append((h @ Ct[..., None])[..., 0])
        return torch.stack(out, 1).to(x.dtype), h
