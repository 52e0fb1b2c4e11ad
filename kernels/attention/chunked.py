"""Dense tiles: torch's fused attention where it can serve, else blocks of queries beside just the keys that they may see.

No (t, s) matrix is ever formed: a window costs O(t window) time and memory; without one, tiles are at most BLOCK queries tall, and a call
with many weights recomputes them tile by tile in its backward pass instead of keeping them.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kernels.attention import tiles
from kernels.attention.tiles import Tile
from kernels.attention.visible import Sight, first_sinks, seen
from kernels.dtypes import wide

UNSEEN = -1e30  # added to a masked score: exp gives 0, and nothing is infinite


def attention(
    q: Tensor, k: Tensor, v: Tensor, view: Sight, *, softcap: float | None, sink_logits: Tensor | None, scale: float | None
) -> Tensor:
    options = {"softcap": softcap is not None, "sink_logits": sink_logits is not None, "same_width": q.shape[-1] == v.shape[-1]}
    if view.plain and tiles.fused(view.t, view.s, view.window, **options):
        return _fused(q, k, v, scale)
    grouped = _scaled(q, scale).unflatten(2, (k.shape[2], -1))
    k, v = _heads_first(k), _heads_first(v)
    sinks = None if sink_logits is None else wide(sink_logits).unflatten(0, (k.shape[1], 1, -1, 1, 1))

    def compute(tile: Tile, rows: Tensor) -> Tensor:
        index, visible = _keys_in(tile, view, rows)
        scores = _scores(_queries(grouped, tile), _keys(k, tile, view, index), visible, softcap)
        if sinks is not None:
            scores = torch.cat([scores, sinks.expand(*scores.shape[:-1], 1)], -1)
        p = scores.softmax(-1)
        return _mix(p if sinks is None else p[..., :-1], _keys(v, tile, view, index), view, visible)

    return _run(compute, view, q)


def differential(q: Tensor, k: Tensor, v: Tensor, mix: Tensor, view: Sight, *, scale: float | None) -> Tensor:
    n, m = k.shape[2:4]
    maps = _scaled(q, scale).unflatten(3, (m, -1))  # (b, t, 2, m, g, e): a map joins the key heads, or the queries of a key head
    grouped, axis = (maps.flatten(2, 3), 1) if n == 2 else (maps.movedim(2, 3).flatten(3, 4), 3)
    share = mix.unflatten(2, (m, -1))[..., None]
    k, v = _heads_first(k.flatten(2, 3)), _heads_first(v)

    def compute(tile: Tile, rows: Tensor) -> Tensor:
        index, visible = _keys_in(tile, view, rows)
        scores = _scores(_queries(grouped, tile), _keys(k, tile, view, index), visible, None)
        first, second = scores.softmax(-1).unflatten(axis, (2, -1)).unbind(axis)
        return _mix(first - wide(_queries(share, tile)) * second, _keys(v, tile, view, index), view, visible)

    return _run(compute, view, q)


def _fused(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    gqa = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1, scale=scale, enable_gqa=gqa).transpose(1, 2)


def _run(compute: Callable[[Tile, Tensor], Tensor], view: Sight, q: Tensor) -> Tensor:
    """Every tile's output (b, rows, h, w), joined along time in q's dtype."""
    plan = _plan(view, q.device)
    entries = q.shape[0] * q.shape[2:-1].numel() * sum(tile.pairs for tile, _ in plan)
    if torch.is_grad_enabled() and entries > tiles.KEPT:
        out = [checkpoint(compute, tile, rows, use_reentrant=False, preserve_rng_state=False) for tile, rows in plan]
    else:
        out = [compute(tile, rows) for tile, rows in plan]
    return torch.cat(out, 1)[:, : view.t].to(q.dtype)


def _plan(view: Sight, device: torch.device) -> list[tuple[Tile, Tensor]]:
    """The tiles and the indices (blocks, rows) of their queries. In packed rows no slice begins before the documents it is for."""
    found = []
    for tile in tiles.tiles(view.t, view.s, view.window, view.sink_tokens):
        rows = tile.start + torch.arange(tile.blocks * tile.rows, device=device).unflatten(0, (tile.blocks, tile.rows))
        found.append((tile, rows))
    if view.k_documents is None or found[0][0].blocks > 1:
        return found
    begins = torch.stack([first_sinks(view, rows).amin() for _, rows in found]).tolist()
    own = [view.s - view.t + tile.start for tile, _ in found]
    return [(t._replace(reach=min(t.reach, max(0, o - begin))), rows) for (t, rows), o, begin in zip(found, own, begins, strict=True)]


def _scaled(q: Tensor, scale: float | None) -> Tensor:
    return q * (q.shape[-1] ** -0.5 if scale is None else scale)


def _heads_first(x: Tensor) -> Tensor:
    """x (b, s, m, e) -> (b, m, s, e) in memory, so that every slice of time meets a matmul without another copy."""
    return x.transpose(1, 2).contiguous()


def _keys_in(tile: Tile, view: Sight, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Index of each of the tile's key columns (b or 1, n, sinks + reach + rows), -1 = none, and which queries see them."""
    low = rows[:, :1] + (view.s - view.t - tile.reach)
    index = (low + torch.arange(tile.reach + tile.rows, device=rows.device))[None]
    index = index.where(index < view.s, -1)
    if tile.sinks:
        sinks = first_sinks(view, rows)[..., None] + torch.arange(tile.sinks, device=rows.device)
        sinks = sinks.where(sinks < low, -1)  # later ones are in the slice
        index = torch.cat([sinks, index.expand(sinks.shape[0], -1, -1)], 2)
    return index, seen(view, rows, index)


def _queries(x: Tensor, tile: Tile) -> Tensor:
    """x (b, t, m, g, e) -> the tile's (b, m, n, g, rows, e), 0 beyond the end."""
    span = tile.blocks * tile.rows
    piece = x[:, tile.start : tile.start + span]
    if piece.shape[1] < span:
        piece = F.pad(piece, (0, 0, 0, 0, 0, 0, 0, span - piece.shape[1]))
    return piece.unflatten(1, (tile.blocks, tile.rows)).permute(0, 3, 1, 4, 2, 5)


def _keys(x: Tensor, tile: Tile, view: Sight, index: Tensor) -> Tensor:
    """x (b, m, s, e) -> the tile's (b, m, n, sinks + reach + rows, e)."""
    low = view.s - view.t + tile.start - tile.reach
    high = low + tile.reach + tile.blocks * tile.rows
    piece = x[:, :, max(low, 0) : high]
    if low < 0 or high > view.s:
        piece = F.pad(piece, (0, 0, max(-low, 0), max(high - view.s, 0)))
    if tile.blocks == 1:
        blocks = piece[:, :, None]
    else:  # reach <= rows: the end of the block before, and the block
        own = piece[:, :, tile.reach :].unflatten(2, (tile.blocks, tile.rows))
        past = piece[:, :, : tile.blocks * tile.rows].unflatten(2, (tile.blocks, tile.rows))[:, :, :, : tile.reach]
        blocks = torch.cat([past, own], 3)
    if tile.sinks == 0:
        return blocks
    chosen = index[..., : tile.sinks].clamp(min=0).expand(x.shape[0], -1, -1)
    sinks = x.gather(2, chosen.flatten(1)[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))
    return torch.cat([sinks.unflatten(2, chosen.shape[1:]), blocks], 3)


def _scores(q: Tensor, k: Tensor, visible: Tensor, softcap: float | None) -> Tensor:
    """q (b, m, n, g, rows, e), k (b, m, n, keys, e), visible (b or 1, n, rows, keys) -> masked (b, m, n, g, rows, keys)."""
    g, rows = q.shape[3:5]
    scores = wide(q.flatten(3, 4) @ k.mT)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    bias = torch.zeros(visible.shape, dtype=scores.dtype, device=scores.device).masked_fill_(~visible, UNSEEN)
    scores += bias.repeat(1, 1, g, 1)[:, None]  # in place, on no view: a fresh tensor of this size costs more than the sum
    return scores.unflatten(3, (g, rows))


def _mix(p: Tensor, v: Tensor, view: Sight, visible: Tensor) -> Tensor:
    """Weights p (b, m, n, g, rows, keys) times v (b, m, n, keys, w) -> (b, n rows, m g, w), 0 where a query sees nothing."""
    o = (p.to(v.dtype).flatten(3, 4) @ v).unflatten(3, p.shape[3:5])
    o = o.permute(0, 2, 4, 1, 3, 5).flatten(3, 4)  # (b, n, rows, m g, w)
    if not view.plain:
        o = o.masked_fill(~visible.any(-1)[..., None, None], 0)
    return o.flatten(1, 2)
