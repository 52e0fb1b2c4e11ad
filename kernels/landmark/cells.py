"""The blocks of a call as runs of consecutive keys, for programs that read keys where they lie."""

from typing import NamedTuple

import torch
from torch import Tensor

from kernels.dtypes import wide

TILE = 256  # queries whose blocks are chosen at a time: no score matrix is larger than TILE x blocks


class Cells(NamedTuple):
    """b rows, s keys, n cells; all int32. A cell is a block, also the one that is still open; padding is in none."""

    cell: Tensor  # (b, s): the cell of each key, -1 at padding
    first: Tensor  # (b, s): the first cell of each key's document
    regular: Tensor  # (b, s): the cell of a regular key; -2, which is no query's cell, at landmarks and padding
    start: Tensor  # (b, n): the first key of each cell
    length: Tensor  # (b, n): its regular keys
    size: Tensor  # (b, n): its keys, the landmark (the last) included; 0 = the row has no such cell
    stop: Tensor  # (b, n): one past the last key of its document
    closed: int  # the largest size of a cell with a landmark
    largest: int  # the largest size


def find(landmarks: Tensor, documents: Tensor | None) -> Cells:
    """The cells of landmarks (b, s) bool and documents (b, s) int64, -1 = leading padding. Waits for the device once."""
    b, s = landmarks.shape
    index = torch.arange(s, device=landmarks.device).expand(b, s)
    real, fresh, after = torch.ones_like(landmarks), torch.zeros_like(landmarks), torch.zeros_like(landmarks)
    fresh[:, 0] = True
    after[:, 1:] = landmarks[:, :-1]
    if documents is not None:
        real = documents >= 0
        fresh[:, 1:] = documents[:, 1:] != documents[:, :-1]
    opens = (fresh | after) & real
    cell = opens.cumsum(1) - 1
    first = torch.where(fresh & real, cell, 0).cummax(1).values
    ends = torch.where(fresh, index, s)  # where a document begins, the one before it ends
    ends = torch.cat([ends[:, 1:], torch.full_like(ends[:, :1], s)], 1).flip(1).cummin(1).values.flip(1)

    regular, marks = real & ~landmarks, real & landmarks
    at = torch.where(real, cell, s)  # column s takes what belongs to no cell
    empty = torch.zeros(b, s + 1, dtype=torch.int64, device=index.device)
    length, closes = (empty.scatter_add(1, at, x.long())[:, :-1] for x in (regular, marks))
    start, stop = (empty.scatter(1, torch.where(opens, cell, s), x)[:, :-1] for x in (index, ends))
    count = length + closes
    n, closed, largest = torch.stack([cell.max() + 1, (count * closes).max(), count.max()]).tolist()
    cell, first, own = (x.int().contiguous() for x in (cell, first, torch.where(regular, cell, -2)))
    start, length, size, stop = (x[:, : max(n, 1)].int().contiguous() for x in (start, length, count, stop))
    return Cells(cell, first, own, start, length, size, stop, closed, largest)


def choose(q: Tensor, k: Tensor, cells: Cells, top_k: int, scale: float) -> Tensor:
    """The top_k cells of largest landmark score for each query and head, (b, h, t, a power of two >= top_k) int32, -1 = none.

    q (b, t, h, e), k (b, s, m, e). Of equal scores the earlier cell; no gradient.
    """
    (b, t, h, _), m = q.shape, k.shape[2]
    n = cells.start.shape[1]
    width = min(top_k, n)
    chosen = torch.full((b, h, t, 1 << max(width - 1, 0).bit_length()), -1, dtype=torch.int32, device=q.device)
    if width == 0:
        return chosen
    last = (cells.start + cells.length).clamp(max=k.shape[1] - 1).long()
    marks = wide(k.detach()[torch.arange(b, device=q.device)[:, None], last]).permute(0, 2, 3, 1)  # (b, m, e, n)
    for start in range(0, t, TILE):
        rows = slice(start, min(start + TILE, t))
        at = slice(k.shape[1] - t + rows.start, k.shape[1] - t + rows.stop)
        queries = (wide(q.detach()[:, rows]) * scale).unflatten(2, (m, -1)).permute(0, 2, 3, 1, 4)  # (b, m, g, rows, e)
        index = torch.arange(n, device=q.device)
        past = (index >= cells.first[:, at, None]) & (index < cells.cell[:, at, None])  # (b, rows, n)
        scores = (queries.flatten(2, 3) @ marks).view(*queries.shape[:-1], n).masked_fill(~past[:, None, None], -torch.inf)
        best = scores.sort(descending=True, stable=True)
        picked = torch.where(best.values > -torch.inf, best.indices, -1)[..., :width]
        chosen[:, :, rows, :width] = picked.flatten(1, 2).int()
    return chosen
