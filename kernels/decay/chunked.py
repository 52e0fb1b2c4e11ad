"""Chunks of tokens as matrix products; only the states between chunks are passed one after another.

A mild decay is taken out of the products as factors (kernels/decay/factored.py), if need be in shorter chunks; decays too strong for
that take the form that is exact for any (kernels/decay/exact.py).
"""

import torch
from torch import Tensor

from kernels.decay import exact, reference
from kernels.decay.backward import Factored
from kernels.decay.factors import is_mild
from kernels.dtypes import wide

CHUNK = 64  # the fastest chunk on a CPU at key and value widths of 64 to 128; a matrix product of it fills a core
SHORT = 16  # shorter ones are slower than the exact form


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
    t, h = v.shape[1:3]
    if t == 1:
        return reference.decay(q, k, v, g, state, bonus=bonus, reset=reset)
    if g is not None and g.ndim == 4 and q.shape[2] < h:  # every head decays the scores its own way: nothing is shared in a group
        q, k = (x.repeat_interleave(h // x.shape[2], 2) for x in (q, k))
    size = mild_size(g, min(chunk or CHUNK, t))
    if size is None:
        return exact.decay(q, k, v, g, state, bonus=bonus, reset=reset, chunk=min(chunk or CHUNK, t))
    values = v if bonus is None else wide(v)
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (q, k, v, g, state))
    o, last = Factored.apply(q, k, values, g, state, reset, size, bonus is not None, keep)
    if bonus is not None:
        o = o + _own(wide(q), wide(k), wide(bonus))[..., None] * values
    return o.to(v.dtype), last


def mild_size(g: Tensor | None, size: int) -> int | None:
    """The largest of size, size / 2 .. SHORT in whose chunks every decay is mild; None if there is none."""
    while not is_mild(g, size):
        size //= 2
        if size < SHORT:
            return None
    return size


def _own(q: Tensor, k: Tensor, bonus: Tensor) -> Tensor:
    """(b, t, h): each token's score with itself, weighted by the bonus (h, k)."""
    n = q.shape[2]
    return torch.stack([((q * k) * u).sum(-1) for u in bonus.unflatten(0, (n, -1)).unbind(1)], -1).flatten(2)
