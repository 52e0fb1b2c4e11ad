"""Dense tiles: torch's fused attention where it can serve, else blocks of queries beside just the keys that they may see.

No (t, s) matrix is ever formed, forward or backward: memory is linear in t, and a window costs O(t window) time.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.attention import tiles
from kernels.attention.differential import differential as _differential
from kernels.attention.softmax import Call, softmax
from kernels.attention.tiles import Tile
from kernels.attention.visible import Sight, first_sinks


def attention(
    q: Tensor, k: Tensor, v: Tensor, view: Sight, *, softcap: float | None, sink_logits: Tensor | None, scale: float | None
) -> Tensor:
    options = {"softcap": softcap is not None, "sink_logits": sink_logits is not None, "same_width": q.shape[-1] == v.shape[-1]}
    if view.plain and tiles.fused(view.t, view.s, view.window, **options):
        return _fused(q, k, v, scale)
    dtype, m = _dtype(q), k.shape[2]
    sinks = None if sink_logits is None else sink_logits.unflatten(0, (m, -1))
    q, k, v, given = q.to(dtype).unflatten(2, (m, -1)), k.to(dtype), v.to(dtype), q.dtype
    return softmax(q, k, v, sinks, _call(view, q, k.shape[2], scale, softcap)).flatten(2, 3).to(given)


def differential(q: Tensor, k: Tensor, v: Tensor, mix: Tensor, view: Sight, *, scale: float | None) -> Tensor:
    dtype, m, given = _dtype(q), k.shape[3], q.dtype
    q, k, v, mix = q.to(dtype).unflatten(3, (m, -1)), k.to(dtype), v.to(dtype), mix.unflatten(2, (m, -1))[..., None]
    return _differential(q, k, v, mix, _call(view, q, k.shape[3], scale, None)).flatten(2, 3).to(given)


def _fused(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    gqa = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1, scale=scale, enable_gqa=gqa).transpose(1, 2)


def _dtype(q: Tensor) -> torch.dtype:
    """Of the matmuls: q's, or what autocast says."""
    device = q.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) and q.dtype != torch.float64 else q.dtype


def _call(view: Sight, q: Tensor, heads: int, scale: float | None, softcap: float | None) -> Call:
    """q (.., heads, g, e)"""
    return Call(view, _plan(view, q.device), q.shape[-1] ** -0.5 if scale is None else scale, softcap, heads, q.shape[-2], {})


def _plan(view: Sight, device: torch.device) -> list[Tile]:
    """The tiles. In packed rows without a window no slice begins before the documents it is for."""
    found = tiles.tiles(view.t, view.s, view.window, view.sink_tokens)
    if view.k_documents is None or view.window is not None:
        return found
    rows = [tile.start + torch.arange(tile.rows, device=device)[None] for tile in found]
    begins = torch.stack([first_sinks(view, index).amin() for index in rows]).tolist()
    own = [view.s - view.t + tile.start for tile in found]
    return [t._replace(reach=min(t.reach, max(0, o - begin))) for t, o, begin in zip(found, own, begins, strict=True)]
