"""What a tile hides: the additive mask of its scores, for just the columns that some query doesn't see."""

from typing import NamedTuple

import torch
from torch import Tensor

from kernels.attention.tiles import Tile
from kernels.attention.visible import Sight, first_sinks, seen

UNSEEN = -1e30  # added to a masked score: exp2 gives 0, and nothing is infinite


class Mask(NamedTuple):
    """The mask of a tile of n blocks, or of one that stands for all of them."""

    columns: slice  # those that some query doesn't see
    bias: Tensor  # (b, n, rows g, columns), what is added to them; (1, rows g, columns) if it is the same for all
    sinks: Tensor | None  # (b or 1, n, sinks): the keys in its sink columns, anything where there is none
    blocks: int  # n or 1
    differs: bool  # from one row of the batch to another


def mask(tile: Tile, low: int, view: Sight, groups: int, device: torch.device) -> Mask:
    """The mask of a tile whose first block has its keys from `low` on, for `groups` query heads a key head."""
    rows, keys = _indices(tile, low, view, device)
    columns = _partly_seen(tile, view)
    visible = seen(view, rows, keys[..., columns])
    bias = torch.zeros(visible.shape, device=device).masked_fill_(~visible, UNSEEN).repeat_interleave(groups, 2)
    sinks = keys[..., : tile.sinks].clamp(min=0) if tile.sinks else None
    differs = bias.shape[0] > 1
    return Mask(columns, bias if differs or tile.blocks > 1 else bias[0], sinks, tile.blocks, differs)


def _indices(tile: Tile, low: int, view: Sight, device: torch.device) -> tuple[Tensor, Tensor]:
    """The tile's queries (n, rows) among the t, and the key in each of its columns (b or 1, n, keys) among the s, -1 = none."""
    rows = tile.start + torch.arange(tile.blocks * tile.rows, device=device).unflatten(0, (tile.blocks, tile.rows))
    begin = low + tile.rows * torch.arange(tile.blocks, device=device)[:, None]
    index = (begin + torch.arange(tile.reach + tile.rows, device=device))[None]
    if tile.sinks:
        sinks = first_sinks(view, rows)[..., None] + torch.arange(tile.sinks, device=device)
        sinks = sinks.where(sinks < begin, -1)  # later ones are in the slice
        index = torch.cat([sinks, index.expand(sinks.shape[0], -1, -1)], 2)
    return rows, index


def _partly_seen(tile: Tile, view: Sight) -> slice:
    """The columns that some query of the tile doesn't see, or all of them where they are most: one long sum is the faster one."""
    free = view.plain and view.window is None and tile.reach > 2 * tile.rows
    return slice(tile.keys - tile.rows if free else 0, tile.keys)
