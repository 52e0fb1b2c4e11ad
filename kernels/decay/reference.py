"""The definition: one token at a time, the outer product and the read as explicit matrix products."""

import torch
from torch import Tensor

from kernels.dtypes import wide


def decay(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    state: Tensor | None = None,
    *,
    bonus: Tensor | None = None,
    reset: Tensor | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """`chunk` belongs to the signature of the operation and means nothing here."""
    b, _, h, width = v.shape
    by_head = (wide(x).repeat_interleave(max(1, h // x.shape[2]), 2).unflatten(2, (h, -1)) for x in (q, k))
    queries, keys = (x.unbind(1) for x in by_head)  # (b, h, r, k), (b, h, 1, k)
    values = wide(v).unbind(1)
    s = keys[0].new_zeros(b, h, q.shape[3], width) if state is None else wide(state)
    kept = None if g is None else wide(g).exp().reshape(*g.shape[:3], -1, 1).unbind(1)  # (b, h, k or 1, 1)
    fresh = None if reset is None else reset[:, :, None, None, None].unbind(1)
    out = []
    for i, (q_t, k_t, v_t) in enumerate(zip(queries, keys, values, strict=True)):
        if fresh is not None:
            s = s.masked_fill(fresh[i], 0)
        written = k_t.mT @ v_t[..., None, :]
        after = written + (s if kept is None else kept[i] * s)
        seen = after if bonus is None else s + wide(bonus)[..., None] * written
        out.append((q_t @ seen).flatten(1, 2))
        s = after
    return torch.stack(out, 1).to(v.dtype), s
