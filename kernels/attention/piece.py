"""Pieces of a call: what one step of the tiled passes works on, and how its queries and keys get there and back.

The pairs of a call are its batch rows times its key heads. A piece is a tile's queries of some pairs, as many as keep its scores
in cache, and its matrices stand in a row of p = pairs x blocks. The g query heads of a key head are rows of one matrix, token by
token, so that a piece of queries laid out as (pairs, t g, e), and of keys as (pairs, s, e), is a slice of them.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.attention import tiles
from kernels.attention.mask import Mask, mask
from kernels.attention.tiles import Tile
from kernels.attention.visible import Sight


class Piece(NamedTuple):
    """n = tile.blocks, keys = tile.keys."""

    tile: Tile
    low: int  # index of the first block's first key, sinks aside
    mask: Mask
    pairs: slice
    rows: slice  # of the queries, t g
    batch: Tensor | None  # (pairs,) int64: the batch row of each pair, where their masks differ

    def queries(self, x: Tensor) -> Tensor:
        """x (pairs, t g, e) -> (p, rows g, e), a view where the piece is one block or one pair."""
        found = x[self.pairs, self.rows]
        return found if self.tile.blocks == 1 else found.unflatten(1, (self.tile.blocks, -1)).flatten(0, 1)

    def write(self, x: Tensor, found: Tensor) -> None:
        """Put found (p, rows g, e) in its place in x (pairs, t g, e)."""
        own = x[self.pairs, self.rows]
        own.copy_(found.view(own.shape))

    def divide(self, x: Tensor, found: Tensor, by: Tensor) -> None:
        """Put found (p, rows g, e) / by (p, rows g, 1) in its place in x (pairs, t g, e)."""
        own = x[self.pairs, self.rows].unflatten(1, (self.tile.blocks, -1))
        torch.div(found.view(own.shape), by.view(*own.shape[:3], 1), out=own)

    def product(self, x: Tensor, left: Tensor, right: Tensor, factor: float) -> None:
        """Put factor left right, left (p, rows g, keys) and right (p, keys, e), in its place in x (pairs, t g, e)."""
        if self.tile.blocks == 1:
            x[self.pairs, self.rows].baddbmm_(left, right, beta=0, alpha=factor)
        else:
            self.write(x, (left @ right).mul_(factor))

    def keys(self, x: Tensor) -> Tensor:
        """x (pairs, s, e) -> (p, keys, e), a view where the piece is one block or one pair, and has no sinks."""
        tile, width = self.tile, self.tile.reach + self.tile.rows
        found = x[self.pairs, self.low : self.low + width + (tile.blocks - 1) * tile.rows]
        if tile.blocks == 1 and self.mask.sinks is None:
            return found
        blocks = found.unfold(1, width, tile.rows).mT  # (pairs, n, reach + rows, e)
        if self.mask.sinks is not None:
            sinks = x[self.pairs].gather(1, self._sinks(x)).unflatten(1, (tile.blocks, -1))
            blocks = torch.cat([sinks, blocks], 2)
        return blocks.flatten(0, 1)

    def add(self, x: Tensor, left: Tensor, right: Tensor, factor: float = 1.0) -> None:
        """Add factor left^T right, left (p, rows g, keys) and right (p, rows g, e), to where the keys come from in x (pairs, s, e)."""
        tile, width = self.tile, self.tile.reach + self.tile.rows
        if tile.blocks == 1 and self.mask.sinks is None:
            x[self.pairs, self.low : self.low + width].baddbmm_(left.mT, right, alpha=factor)
            return
        source = x[self.pairs]
        found = (left.mT @ right).mul_(factor).unflatten(0, (-1, tile.blocks))
        if self.mask.sinks is not None:
            source.scatter_add_(1, self._sinks(x), found[:, :, : tile.sinks].flatten(1, 2))
        for stop in range(width, 0, -tile.rows):  # a block's keys in runs of a block's length: those of all blocks don't overlap
            start = max(stop - tile.rows, 0)
            target = source[:, self.low + start : self.low + start + tile.blocks * tile.rows].unflatten(1, (tile.blocks, tile.rows))
            target[:, :, : stop - start] += found[:, :, tile.sinks + start : tile.sinks + stop]

    def hide(self, scores: Tensor) -> Tensor:
        """scores (p, rows g, keys), changed: what isn't visible is far below all else."""
        blocks = scores if self.mask.bias.dim() == 3 else scores.unflatten(0, (-1, self.mask.blocks))
        blocks[..., self.mask.columns] += self.mask.bias if self.batch is None else self.mask.bias[self.batch]
        return scores

    def _sinks(self, x: Tensor) -> Tensor:
        """The index of `gather` for the sink columns: (pairs, n sinks, e)."""
        assert self.mask.sinks is not None
        index = self.mask.sinks if self.batch is None or self.mask.sinks.shape[0] == 1 else self.mask.sinks[self.batch]
        return index.flatten(1)[..., None].expand(self.pairs.stop - self.pairs.start, -1, x.shape[2])


Known = dict[tuple[int, ...], Mask]


def pieces(view: Sight, plan: list[Tile], batch: int, heads: int, groups: int, device: torch.device, known: Known) -> Iterator[Piece]:
    """The pieces of a call of `batch` rows and `heads` key heads that `groups` query heads share. `known` keeps masks: in plain rows
    most tiles have one of a few. There some pairs take all tiles, so that their keys stay in cache; in packed rows a mask is made
    once for all pairs."""
    limit = tiles.ENTRIES.get(device.type, tiles.ENTRIES["cpu"])
    most = max(1, limit // (groups * max(tile.rows * tile.keys for tile in plan)))
    shares = [slice(i, min(i + most, batch * heads)) for i in range(0, batch * heads, most)]
    rows = torch.arange(batch, device=device).repeat_interleave(heads)
    for tile, share in ((b, a) for a in shares for b in plan) if view.plain else ((a, b) for a in plan for b in shares):
        step = max(1, limit // (groups * tile.rows * tile.keys * (share.stop - share.start)))
        for first in range(0, tile.blocks, step):
            part = tile._replace(start=tile.start + first * tile.rows, blocks=min(step, tile.blocks - first))
            low = view.s - view.t + part.start - part.reach
            found = _mask(part, low, view, groups, device, known)
            own = slice(part.start * groups, (part.start + part.blocks * part.rows) * groups)
            yield Piece(part, low, found, share, own, rows[share] if found.differs else None)


def _mask(tile: Tile, low: int, view: Sight, groups: int, device: torch.device, known: Known) -> Mask:
    """From `known`, or made and put there: of packed rows just the latest."""
    name = (*tile[1:], min(low, tile.sinks)) if view.plain else (*tile, low)
    if name not in known:
        if not view.plain:
            known.clear()
        alone = view.plain and tile.sinks == 0  # then all blocks have the same mask
        known[name] = mask(tile._replace(blocks=1) if alone else tile, low, view, groups, device)
    return known[name]
