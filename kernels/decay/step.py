"""A single token: the recurrence itself, with one new state and nothing else of its size."""

from contextlib import nullcontext

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
    """All of length 1. `chunk` belongs to the signature of the operation and means nothing here."""
    b, _, h, width = v.shape
    n, queries = k.shape[2], max(q.shape[2], h)
    r = h // n
    query, key = wide(q).reshape(b, n, -1, max(1, q.shape[2] // h), q.shape[3]), wide(k).reshape(b, n, 1, -1, 1)
    value = wide(v).reshape(b, n, r, 1, width)
    before = None if state is None else wide(state).reshape(b, n, r, -1, width)
    if before is not None and reset is not None:
        before = before.masked_fill(reset[:, :, None, None, None], 0)
    kept = None if before is None or g is None else wide(g).exp().reshape(b, n, r, -1, 1)
    with torch.autocast(v.device.type, enabled=False) if torch.is_autocast_enabled(v.device.type) else nullcontext():
        after = _after(before, kept, key, value)
        if bonus is None:
            out = query @ after
        else:
            out = (query * wide(bonus).reshape(n, r, 1, -1) @ key) * value  # the token itself, (b, n, r, queries of a head, v)
            out = out if before is None else out + query @ before
    return out.reshape(b, 1, queries, width).to(v.dtype), after.reshape(b, h, -1, width)


def _after(before: Tensor | None, kept: Tensor | None, key: Tensor, value: Tensor) -> Tensor:
    """kept before + key value, (b, n, r, k, v)."""
    if before is None:
        return key * value
    return torch.addcmul(before, key, value) if kept is None else (before * kept).addcmul_(key, value)
