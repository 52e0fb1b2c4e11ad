"""The definition: one query of one row at a time, over exactly the keys that it sees."""

import torch
from torch import Tensor

from kernels.attention.visible import Sight, seen
from kernels.dtypes import wide


def attention(
    q: Tensor, k: Tensor, v: Tensor, view: Sight, *, softcap: float | None, sink_logits: Tensor | None, scale: float | None
) -> Tensor:
    m = k.shape[2]
    sinks = None if sink_logits is None else wide(sink_logits).unflatten(0, (m, -1))[..., None]
    out = []
    for row, visible in enumerate(_visible(view, q)):
        for i, query in enumerate(wide(q[row]).unflatten(1, (m, -1)).unbind(0)):  # (m, g, e)
            keys, values = wide(k[row, visible[i]]), wide(v[row, visible[i]])  # (visible keys, m, e or w)
            p = _softmax(query, keys, softcap, sinks, scale)
            out.append((p @ values.transpose(0, 1)).flatten(0, 1))
    return torch.stack(out).unflatten(0, (q.shape[0], -1)).to(q.dtype)


def differential(q: Tensor, k: Tensor, v: Tensor, mix: Tensor, view: Sight, *, scale: float | None) -> Tensor:
    n, m = k.shape[2:4]
    out = []
    for row, visible in enumerate(_visible(view, q)):
        for i, (queries, share) in enumerate(zip(wide(q[row]).unbind(0), wide(mix[row]).unbind(0), strict=True)):
            keys, values = wide(k[row, visible[i]]), wide(v[row, visible[i]])
            maps = [_softmax(queries[j].unflatten(0, (m, -1)), keys[:, j % n], None, None, scale) for j in (0, 1)]
            p = maps[0] - share.unflatten(0, (m, -1))[..., None] * maps[1]
            out.append((p @ values.transpose(0, 1)).flatten(0, 1))
    return torch.stack(out).unflatten(0, (q.shape[0], -1)).to(q.dtype)


def _visible(view: Sight, q: Tensor) -> Tensor:
    """bool (b, t, s)"""
    index = torch.arange(view.s, device=q.device)
    return seen(view, index[None, : view.t], index[None, None])[:, 0].expand(q.shape[0], -1, -1)


def _softmax(query: Tensor, keys: Tensor, softcap: float | None, sinks: Tensor | None, scale: float | None) -> Tensor:
    """query (m, g, e), keys (n, m, e) -> (m, g, n)"""
    scores = query @ keys.permute(1, 2, 0) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if sinks is None:
        return scores.softmax(-1)
    return torch.cat([scores, sinks], -1).softmax(-1)[..., :-1]
