"""A decayed memory whose size is limited: after every token a head's matrix that is longer than p is scaled back to p.

    S_t = diag(exp g_t) S_{t-1} + k_t v_t^T;   S_t <- S_t min(1, p / |S_t|)   (Frobenius norm);   o_t = S_t^T q_t

(state normalisation, arXiv:2410.07145.) The scaling depends on the state, so that there is no chunked form: this is a loop over the
tokens wherever it runs, many times slower than `decay` on a long text.

    o, state = limited(q, k, v, g, state, limit=p, bonus=, reset=)        as `decay` (kernels/decay)
"""

from typing import Any

import torch
from torch import Tensor

from kernels.dtypes import wide
from kernels.opaque import opaque


def _outputs(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    o = v if q.shape[2] <= v.shape[2] else v.new_empty(*q.shape[:3], v.shape[3])
    return o, wide(v[:0]).new_empty(v.shape[0], v.shape[2], q.shape[3], v.shape[3])


@opaque(_outputs)
def limited(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    state: Tensor | None = None,
    *,
    limit: float,
    bonus: Tensor | None = None,
    reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """See the module. With a bonus a token reads the state before it, which is within the limit, and itself."""
    b, _, h, width = v.shape
    by_head = (wide(x).repeat_interleave(max(1, h // x.shape[2]), 2).unflatten(2, (h, -1)) for x in (q, k))
    queries, keys = (x.unbind(1) for x in by_head)  # (b, h, r, k), (b, h, 1, k)
    values = wide(v).unbind(1)
    s = keys[0].new_zeros(b, h, q.shape[3], width) if state is None else wide(state)
    kept = None if g is None else wide(g).exp().reshape(*g.shape[:3], -1, 1).unbind(1)  # (b, h, k or 1, 1)
    fresh = None if reset is None else reset[:, :, None, None, None].unbind(1)
    out = []
    with torch.autocast(v.device.type, enabled=False):
        for i, (q_t, k_t, v_t) in enumerate(zip(queries, keys, values, strict=True)):
            if fresh is not None:
                s = s.masked_fill(fresh[i], 0)
            written = k_t.mT @ v_t[..., None, :]
            after = scaled(written + (s if kept is None else kept[i] * s), limit)
            seen = after if bonus is None else s + wide(bonus)[..., None] * written
            out.append((q_t @ seen).flatten(1, 2))
            s = after
    return torch.stack(out, 1).to(v.dtype), s


def scaled(state: Tensor, limit: float) -> Tensor:
    """state (b, h, k, v) with each head's norm at most `limit`; a shorter one as it is."""
    norm = torch.linalg.vector_norm(state, dim=(-2, -1), keepdim=True)
    return state * (limit / norm.clamp(min=limit))
