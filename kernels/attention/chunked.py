"""Dense tiles: torch's fused attention where it can serve, else blocks of queries beside just the keys that they may see.

No (t, s) matrix is ever formed: a window costs O(t window) time and memory; without one, tiles are BLOCK queries tall.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.attention.tiles import Tile, fused, tiles
from kernels.attention.visible import Sight, first_sinks, seen
from kernels.dtypes import wide

UNSEEN = -1e30  # added to a masked score: exp gives 0, and nothing is infinite


def attention(
    q: Tensor, k: Tensor, v: Tensor, view: Sight, *, softcap: float | None, sink_logits: Tensor | None, scale: float | None
) -> Tensor:
    same_width = q.shape[-1] == v.shape[-1]
    if view.plain and fused(
        view.t, view.s, view.window, softcap=softcap is not None, sink_logits=sink_logits is not None, same_width=same_width
    ):
        return _fused(q, k, v, scale)
    grouped = q.unflatten(2, (k.shape[2], -1))
    sinks = None if sink_logits is None else wide(sink_logits).unflatten(0, (k.shape[2], -1, 1, 1))
    out = []
    for tile, rows in _plan(view, q.device):
        scores, values, alive = _scores(grouped, k, v, view, tile, rows, softcap, scale)
        if sinks is not None:
            scores = torch.cat([scores, sinks.expand(*scores.shape[:-1], 1)], -1)
        p = scores.softmax(-1)
        out.append(_mix(p if sinks is None else p[..., :-1], values, alive))
    return torch.cat(out, 1)[:, : view.t].to(q.dtype)


def differential(q: Tensor, k: Tensor, v: Tensor, mix: Tensor, view: Sight, *, scale: float | None) -> Tensor:
    n, m = k.shape[2:4]
    maps = q.unflatten(3, (m, -1))  # (b, t, 2, m, g, e): the maps join the key heads, or the queries of a key head
    grouped = maps.flatten(2, 3) if n == 2 else maps.movedim(2, 3).flatten(3, 4)
    share = mix.unflatten(2, (m, -1))[..., None]
    out = []
    for tile, rows in _plan(view, q.device):
        scores, values, alive = _scores(grouped, k.flatten(2, 3), v, view, tile, rows, None, scale)
        first, second = scores.softmax(-1).unflatten(2 if n == 2 else 3, (2, -1)).unbind(2 if n == 2 else 3)
        out.append(_mix(first - wide(_queries(share, tile)) * second, values, alive))
    return torch.cat(out, 1)[:, : view.t].to(q.dtype)


def _fused(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    gqa = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1, scale=scale, enable_gqa=gqa).transpose(1, 2)


def _plan(view: Sight, device: torch.device) -> list[tuple[Tile, Tensor]]:
    """The tiles and the indices (blocks, rows) of their queries. In packed rows no slice begins before the documents it is for."""
    found = []
    for tile in tiles(view.t, view.s, view.window, view.sink_tokens):
        rows = tile.start + torch.arange(tile.blocks * tile.rows, device=device).unflatten(0, (tile.blocks, tile.rows))
        found.append((tile, rows))
    if view.k_documents is None or found[0][0].blocks > 1:
        return found
    begins = torch.stack([first_sinks(view, rows).amin() for _, rows in found]).tolist()
    own = [view.s - view.t + tile.start for tile, _ in found]
    return [(t._replace(reach=min(t.reach, max(0, o - begin))), rows) for (t, rows), o, begin in zip(found, own, begins, strict=True)]


def _scores(
    q: Tensor, k: Tensor, v: Tensor, view: Sight, tile: Tile, rows: Tensor, softcap: float | None, scale: float | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Masked scores (b, n, m, g, rows, keys) of grouped queries q (b, t, m, g, e), the tile's values (b, n, keys, m, w), and which
    queries see anything (b, n, rows; None = all)."""
    keys = _key_index(view, tile, rows)
    queries = _queries(q * (q.shape[-1] ** -0.5 if scale is None else scale), tile)
    b, n, m, g = queries.shape[:4]
    scores = wide(queries.reshape(b, n, m, g * tile.rows, -1) @ _keys(k, view, tile, keys).permute(0, 1, 3, 4, 2))
    scores = scores.unflatten(3, (g, tile.rows))
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    visible = seen(view, rows, keys)
    bias = torch.zeros(visible.shape, dtype=scores.dtype, device=scores.device).masked_fill(~visible, UNSEEN)
    return scores + bias[:, :, None, None], _keys(v, view, tile, keys), None if view.plain else visible.any(-1)


def _mix(p: Tensor, values: Tensor, alive: Tensor | None) -> Tensor:
    """p (b, n, m, g, rows, keys), values (b, n, keys, m, w) -> (b, n rows, m g, w), 0 where a query is not alive (b, n, rows)."""
    b, n, m, g, rows, _ = p.shape
    o = p.to(values.dtype).flatten(3, 4) @ values.movedim(2, 3)
    o = o.unflatten(3, (g, rows)).movedim(4, 2).reshape(b, n, rows, m * g, -1)
    if alive is not None:
        o = o.masked_fill(~alive[..., None, None], 0)
    return o.flatten(1, 2)


def _queries(x: Tensor, tile: Tile) -> Tensor:
    """x (b, t, m, g, e) -> the tile's (b, n, m, g, rows, e), 0 beyond the end."""
    span = tile.blocks * tile.rows
    piece = x[:, tile.start : tile.start + span]
    piece = F.pad(piece, (0, 0, 0, 0, 0, 0, 0, span - piece.shape[1])) if piece.shape[1] < span else piece
    return piece.unflatten(1, (tile.blocks, tile.rows)).movedim(2, 4)


def _key_index(view: Sight, tile: Tile, rows: Tensor) -> Tensor:
    """Index of each of the tile's key columns (b or 1, n, sinks + reach + rows); -1 = none."""
    low = rows[:, :1] + (view.s - view.t - tile.reach)
    index = (low + torch.arange(tile.reach + tile.rows, device=rows.device))[None]
    index = index.where(index < view.s, -1)
    if tile.sinks == 0:
        return index
    sinks = first_sinks(view, rows)[..., None] + torch.arange(tile.sinks, device=rows.device)
    sinks = sinks.where(sinks < low, -1)
    return torch.cat([sinks, index.expand(sinks.shape[0], -1, -1)], 2)


def _keys(x: Tensor, view: Sight, tile: Tile, index: Tensor) -> Tensor:
    """x (b, s, m, e) -> the tile's (b, n, sinks + reach + rows, m, e)."""
    low = view.s - view.t + tile.start - tile.reach
    high = low + tile.reach + tile.blocks * tile.rows
    piece = x[:, max(low, 0) : high]
    if low < 0 or high > view.s:
        piece = F.pad(piece, (0, 0, 0, 0, max(-low, 0), max(high - view.s, 0)))
    if tile.blocks == 1:
        blocks = piece[:, None]
    else:  # reach <= rows: the end of the block before, and the block
        own = piece[:, tile.reach :].unflatten(1, (tile.blocks, tile.rows))
        past = piece[:, : tile.blocks * tile.rows].unflatten(1, (tile.blocks, tile.rows))[:, :, : tile.reach]
        blocks = torch.cat([past, own], 2)
    if tile.sinks == 0:
        return blocks
    sinks = index[..., : tile.sinks].clamp(min=0).expand(x.shape[0], -1, -1)
    chosen = x.gather(1, sinks.flatten(1)[..., None, None].expand(-1, -1, *x.shape[2:]))
    return torch.cat([chosen.unflatten(1, sinks.shape[1:]), blocks], 2)
