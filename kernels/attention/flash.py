"""The forward pass of a window by torch's fused attention for CPUs, which keeps scores in cache: a batch of blocks, each beside its keys.

It reads queries and keys where they lie: the windows of a row overlap in memory, and the queries of a key head share it.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from kernels.attention.mask import mask
from kernels.attention.tiles import Tile
from kernels.attention.visible import Sight
from kernels.dtypes import wide

Share = tuple[int | slice, int]  # one batch row or all, and a key head


def serves(q: Tensor, v: Tensor, view: Sight) -> bool:
    """Whether this can make the outputs of a call without a soft cap: plain rows on a CPU, values as wide as keys."""
    return view.plain and view.window is not None and view.sink_tokens == 0 and q.device.type == "cpu" and q.shape[-1] == v.shape[-1]


def flash(q: Tensor, k: Tensor, v: Tensor, view: Sight, plan: list[Tile], scale: float) -> tuple[Tensor, Tensor]:
    """q (b, t, m, g, e), k and v (b, s, m, e) -> o as q, and the logs of the sums of exponentials (b, t, m, g, 1)."""
    o, log_sums = torch.empty(q.shape, dtype=q.dtype), wide(q[:0]).new_empty(*q.shape[:4], 1)
    for tile in _split(plan, q.shape[0]):
        low = view.s - view.t + tile.start - tile.reach
        bias = mask(tile._replace(blocks=1), low, view, 1, q.device).bias.to(q.dtype)[:, None]  # (1, 1, rows, keys)
        for share in _shares(tile, q.shape[0], q.shape[2]):
            keys, values = (_keys(x, tile, low, share, q.shape[3]) for x in (k, v))
            found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                _queries(q, tile, share), keys, values, 0.0, False, attn_mask=bias, scale=scale
            )
            _queries(o, tile, share).copy_(found[0])
            _queries(log_sums, tile, share).copy_(found[1][..., None])
    return o, log_sums


def _split(plan: list[Tile], batch: int) -> Iterator[Tile]:
    """Tiles of one block, to be served for all batch rows at once, or of more blocks than there are rows, row by row."""
    for tile in plan:
        if tile.blocks > batch:
            yield tile
        else:
            yield from (tile._replace(start=tile.start + i * tile.rows, blocks=1) for i in range(tile.blocks))


def _shares(tile: Tile, batch: int, heads: int) -> Iterator[Share]:
    for row in range(batch) if tile.blocks > 1 else (slice(None),):
        for head in range(heads):
            yield row, head


def _queries(x: Tensor, tile: Tile, share: Share) -> Tensor:
    """x (b, t, m, g, e) -> (b or n, g, rows, e)"""
    own = x[share[0], ..., share[1], :, :].narrow(-3, tile.start, tile.blocks * tile.rows)
    return (own if tile.blocks == 1 else own.unflatten(0, (tile.blocks, tile.rows))).transpose(1, 2)


def _keys(x: Tensor, tile: Tile, low: int, share: Share, groups: int) -> Tensor:
    """x (b, s, m, e) -> (b or n, g, keys, e)"""
    near = x[share[0], ..., share[1], :].narrow(-2, low, tile.keys + (tile.blocks - 1) * tile.rows)
    blocks = near if tile.blocks == 1 else near.unfold(0, tile.keys, tile.rows).mT
    return blocks[:, None].expand(-1, groups, -1, -1)
