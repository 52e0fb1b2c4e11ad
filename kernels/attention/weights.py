"""The weights that the outputs are made with, as dense rows, for whoever looks inside: of some queries, over all keys of the call.

o = weights @ v: what the reference mixes its values with. rows (n,) int64 says which of the t queries; b rows, h query heads, s keys.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kernels.attention.visible import Sight, seen
from kernels.dtypes import wide


def attention_weights(
    q: Float[Tensor, "b t h e"],
    k: Float[Tensor, "b s m e"],
    view: Sight,
    rows: Int[Tensor, "n"],
    *,
    softcap: float | None = None,
    sink_logits: Float[Tensor, "h"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "b h n s"]:
    """Of `attention`. A row sums to 1, with sink logits to less, and is 0 where the query sees nothing."""
    visible = _visible(view, rows)
    scores = pair_scores(q[:, rows], k, scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~visible, -torch.inf)
    if sink_logits is not None:
        scores = torch.cat([scores, wide(sink_logits)[None, :, None, None].expand(*scores.shape[:3], 1)], -1)
    return scores.softmax(-1)[..., : view.s].where(visible, 0.0)


def differential_weights(
    q: Float[Tensor, "b t 2 h e"],
    k: Float[Tensor, "b s n m e"],
    mix: Float[Tensor, "b t h"],
    view: Sight,
    rows: Int[Tensor, "r"],
    *,
    scale: float | None = None,
) -> Float[Tensor, "b h r s"]:
    """Of `differential`: the first map less `mix` times the second. Weights may be negative; a row sums to 1 - mix."""
    first, second = (attention_weights(q[:, :, j], k[:, :, j % k.shape[2]], view, rows, scale=scale) for j in (0, 1))
    return first - wide(mix)[:, rows].transpose(1, 2)[..., None] * second


def pair_scores(q: Float[Tensor, "b n h e"], k: Float[Tensor, "b s m e"], scale: float | None) -> Float[Tensor, "b h n s"]:
    """scale q k of every pair, whoever sees whom."""
    m = k.shape[2]
    queries = wide(q).unflatten(2, (m, -1)).permute(0, 2, 3, 1, 4)  # (b, m, h / m, n, e)
    keys = wide(k).permute(0, 2, 3, 1)[:, :, None]  # (b, m, 1, e, s)
    return (queries @ keys).flatten(1, 2) * (q.shape[-1] ** -0.5 if scale is None else scale)


def _visible(view: Sight, rows: Tensor) -> Tensor:
    """bool (b or 1, 1, n, s)"""
    return seen(view, rows[None], torch.arange(view.s, device=rows.device)[None, None])
