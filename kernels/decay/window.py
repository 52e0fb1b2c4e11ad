"""A decayed memory of the last r tokens alone: the sliding window by state difference (arXiv:2410.07145).

    S_t = diag(exp g_t) S_{t-1} + k_t v_t^T                       what `decay` keeps, of all tokens
    W_t = S_t - exp(g_{t-r+1} + .. + g_t) S_{t-r}                 the same of the last r tokens: the token itself and r - 1 before it

The second term is a decayed memory itself, written r tokens late with what r decays have left: D_t = diag(exp g_t) D_{t-1} +
exp(g_{t-r+1} + .. + g_t) k_{t-r} v_{t-r}^T. Both obey one recurrence, so that W is the one state that is carried, beside the last r
tokens' keys, values and log decays; within a piece the late writes are read on their own and subtracted. The difference loses
about eps |S| of what a piece would have summed to without a window; nothing of it reaches the next piece but through W.

    o, state, recent = window(q, k, v, g, state, recent, size=r, bonus=, reset=, pads=)

As `decay` (kernels/decay), and: recent (b, r, n k + h v + gates), the last r tokens, 0 where there are none in the document; pads
(b,) the number of leading padded tokens of each row. With a bonus a token reads W_{t-1} and itself, r + 1 tokens. It costs two decays.
"""

import torch
from torch import Tensor

from kernels.conv.history import extend
from kernels.decay import decay
from kernels.dtypes import wide


def window(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    state: Tensor | None = None,
    recent: Tensor | None = None,
    *,
    size: int,
    bonus: Tensor | None = None,
    reset: Tensor | None = None,
    pads: Tensor | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """See the module. Returns o (b, t, h, v) in v's dtype, the state and the recent tokens after it, both at least float32."""
    if g is not None and g.ndim == 4 and k.shape[2] < v.shape[2]:  # what is left of a key differs from head to head
        q, k = (x.repeat_interleave(v.shape[2] // x.shape[2], 2) for x in (q, k))
    parts = [wide(k), wide(v), *([] if g is None else [wide(g)])]
    full, run, recent = extend(torch.cat([x.flatten(2) for x in parts], -1), recent, size, reset=reset, pads=pads)
    late = full[:, : v.shape[1]]
    if run is not None:  # what an earlier document wrote is gone already
        late = late * (run[:, : v.shape[1]] == run[:, size:])[..., None]
    late_k, late_v, *_ = (
        x.unflatten(-1, p.shape[2:]) for x, p in zip(late.split([p[0, 0].numel() for p in parts], -1), parts, strict=True)
    )
    if g is not None:
        left = _window_sum(full[..., -g[0, 0].numel() :], size).exp().unflatten(-1, g.shape[2:])
        late_k, late_v = (late_k * left, late_v) if g.ndim == 4 else (late_k, late_v * left[..., None])
    o, after = decay(q, parts[0], parts[1], g, state, bonus=bonus, reset=reset, chunk=chunk)
    nothing = None if bonus is None else torch.zeros_like(bonus)  # a read of the state before the token
    o_late, after_late = decay(q, late_k, late_v, g, None, bonus=nothing, reset=reset, chunk=chunk)
    return (o - o_late).to(v.dtype), after - after_late, recent


def _window_sum(x: Tensor, size: int) -> Tensor:
    """x (b, size + t, c) -> (b, t, c): at each of the last t places the sum of the last `size` entries. In float64, because a running
    sum of a long text has no digits left for a short one's."""
    total = x.double().cumsum(1)
    return (total[:, size:] - total[:, :-size]).to(x.dtype)


def masked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    *,
    size: int,
    bonus: Tensor | None = None,
    reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition, from the start of a text: every token sums over the tokens that it may see. (b, t, t, h, k) numbers."""
    b, t, h, _ = v.shape
    q, k = (wide(x).repeat_interleave(h // x.shape[2], 2) for x in (q, k))
    g = q.new_zeros(b, t, h, 1) if g is None else wide(g).reshape(b, t, h, -1)
    total = torch.cat([torch.zeros_like(g[:, :1]), g.cumsum(1)], 1)  # of all tokens before
    upto = total[:, 1:] if bonus is None else total[:, :-1]
    at = torch.arange(t, device=v.device)
    age = at[:, None] - at
    run = torch.zeros(b, t, device=v.device) if reset is None else reset.cumsum(1)
    same = run[:, :, None] == run[:, None]
    seen = same & ((age >= 0) & (age < size) if bonus is None else (age > 0) & (age <= size))
    left = (upto[:, :, None] - total[:, None, 1:]).masked_fill(~seen[..., None, None], -torch.inf).exp()  # (b, t, i, h, k or 1)
    scores = (q[:, :, None] * k[:, None] * left).sum(-1)
    if bonus is not None:
        scores = scores + torch.eye(t, device=v.device, dtype=q.dtype)[..., None] * (q * wide(bonus) * k).sum(-1)[:, :, None]
    o = (scores[..., None] * wide(v)[:, None]).sum(2)
    last = same[:, -1] & (at > t - 1 - size)
    kept = k * (total[:, -1:] - total[:, 1:]).exp() * last[..., None, None]
    return o.to(v.dtype), (kept[..., None] * wide(v)[..., None, :]).sum(1)
