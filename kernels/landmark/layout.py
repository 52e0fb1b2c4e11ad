"""Keys in cells: one row of slots a block, its landmark in the last slot, so that a sum over a block is a sum over a row."""

from typing import NamedTuple

import torch
from torch import Tensor

TILE = 64  # queries scored at a time
PAIRS = 2**19  # queries x slots scored at a time, 2 MiB of float32 scores a head: a long past makes short tiles
LEAST = 16  # queries scored at a time whatever the past: fewer waste the processor


class Layout(NamedTuple):
    """b rows, s keys, n cells of c slots."""

    slots: Tensor  # (b, n * c) int64: the key in each slot, s = none
    place: Tensor  # (b, s) int64: the slot of each key, 0 at padding
    real: Tensor  # (b, s) bool: not padding
    cell: Tensor  # (b, s) int64: the cell of each key, -1 at padding
    first: Tensor  # (b, s) int64: the first cell of each key's document
    width: int  # c
    gaps: bool  # a closed block holds fewer keys than the longest one


class Tile(NamedTuple):
    """Some queries and the cells that hold all keys they see."""

    start: int  # first query
    stop: int
    key: int  # the first query's own index among the keys
    low: int  # first cell
    whole: int  # cells below it are full, and seen whole or not at all
    high: int


def arrange(landmarks: Tensor, documents: Tensor | None) -> Layout:
    """The cells of landmarks (b, s) bool and documents (b, s) int64, -1 = leading padding. Work and memory grow with
    blocks x longest block, so blocks should be of like length, as a token plan makes them."""
    b, s = landmarks.shape
    index = torch.arange(s, device=landmarks.device).expand(b, s)
    real = torch.ones_like(landmarks) if documents is None else documents >= 0
    opens = torch.ones_like(landmarks)  # first key of its cell
    opens[:, 1:] = landmarks[:, :-1]
    fresh = torch.zeros_like(landmarks)  # first key of its document
    fresh[:, 0] = True
    if documents is not None:
        fresh[:, 1:] = documents[:, 1:] != documents[:, :-1]
    opens = (opens | fresh) & real
    cell = opens.cumsum(1) - 1
    first = torch.where(fresh & real, cell, 0).cummax(1).values
    rank = index - torch.where(opens, index, 0).cummax(1).values
    regular = real & ~landmarks
    width = int(torch.where(regular, rank + 1, 0).max()) + 1
    n = int(cell.max()) + 1
    place = torch.where(real, cell * width + torch.where(landmarks, width - 1, rank), 0)
    slots = torch.full((b, max(n, 1) * width + 1), s, device=index.device)
    slots.scatter_(1, torch.where(real, place, slots.shape[1] - 1), index)
    slots = slots[:, :-1].contiguous()
    filled = (slots.unflatten(1, (-1, width))[:, :-1, :-1] < s).all() if n > 1 else True
    return Layout(slots, place, real, cell, first, width, not bool(filled))


def tiles(layout: Layout, queries: int) -> list[Tile]:
    """The last `queries` keys as queries, TILE at a time, or fewer before a long past."""
    cell, first = layout.cell[:, -queries:], layout.first[:, -queries:]
    rows = min(TILE, max(LEAST, PAIRS // layout.slots.shape[1]))
    starts = range(0, queries, rows)
    stops = [min(start + rows, queries) for start in starts]
    low = first[:, list(starts)].amin(0).tolist()
    whole = cell[:, list(starts)].amin(0).clamp(min=0).tolist()
    high = (cell[:, [stop - 1 for stop in stops]].amax(0).clamp(min=0) + 1).tolist()
    before = layout.cell.shape[1] - queries
    index = [before + start for start in starts]
    return [Tile(*tile) for tile in zip(starts, stops, index, low, low if layout.gaps else whole, high, strict=True)]
