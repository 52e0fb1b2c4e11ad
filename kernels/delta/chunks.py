"""How a sequence is cut: chunks of c tokens, and tiles of a few chunks of a few rows, whose buffers stay in cache.

A *system* is one chunk of one head of one row. A tile's systems are ordered (chunk, row, head), so that the pass over chunks
reads contiguous slices, and all that doesn't need the state runs as one batched matmul over the tile's systems.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 128  # systems of a tile, if it has several chunks: fewer leave time to the calls, more leave the cache
STEP = 32  # systems that walk from chunk to chunk together, if one row has no more


class Tile(NamedTuple):
    """n chunks of c tokens of some rows. The last tile of a sequence may reach over its end: it reads 0 there."""

    rows: slice
    tokens: slice
    n: int
    c: int

    def load(self, x: Tensor, out: Tensor) -> Tensor:
        """x (b, t, h, e) -> out (systems, c, e), which may be a view of a wider tensor."""
        part = x[self.rows, self.tokens]
        missing = self.n * self.c - part.shape[1]
        if missing:
            part = F.pad(part, [0, 0, 0, 0, 0, missing])
        g, _, h, _ = part.shape
        out.unflatten(0, (self.n, g, h)).copy_(part.unflatten(1, (self.n, self.c)).permute(1, 0, 3, 2, 4))
        return out

    def store(self, x: Tensor, out: Tensor) -> None:
        """x (systems, c, e) -> its place in out (b, t, h, e)."""
        part = out[self.rows, self.tokens]
        g, t, h, _ = part.shape
        x = x.unflatten(0, (self.n, g, h)).permute(1, 0, 3, 2, 4)
        if t == self.n * self.c:
            part.unflatten(1, (self.n, self.c)).copy_(x)
        else:
            part.copy_(x.flatten(1, 2)[:, :t])


class Layout(NamedTuple):
    """b batch, t time, h heads, n chunks of c tokens (the last one padded)."""

    b: int
    t: int
    h: int
    n: int
    c: int

    @staticmethod
    def of(x: Tensor, chunk: int) -> "Layout":
        """x (b, t, h, ...) in chunks of at most `chunk` tokens."""
        b, t, h, *_ = x.shape
        return Layout.sized(b, t, h, chunk)

    @staticmethod
    def sized(b: int, t: int, h: int, chunk: int) -> "Layout":
        if chunk < 1 or chunk & (chunk - 1):
            raise ValueError(f"chunk = {chunk}: must be a power of two")
        c = min(chunk, 1 << (t - 1).bit_length())
        return Layout(b, t, h, -(-t // c), c)

    def walks(self) -> Iterator[tuple[slice, list[Tile]]]:
        """Rows that walk together, and their tiles in the order of time."""
        together = min(self.b, max(1, STEP // self.h))
        n = min(self.n, max(1, TILE // (together * self.h)))
        for row in range(0, self.b, together):
            rows = slice(row, min(row + together, self.b))
            yield rows, [self._tile(rows, i, min(n, self.n - i)) for i in range(0, self.n, n)]

    def _tile(self, rows: slice, chunk: int, n: int) -> Tile:
        return Tile(rows, slice(chunk * self.c, min((chunk + n) * self.c, self.t)), n, self.c)


class Documents(NamedTuple):
    """Which pairs of a chunk may meet, where new documents begin inside of it. All float, one row a system."""

    same: Tensor  # (n, c, c): both tokens are of one document
    first: Tensor  # (n, c, 1): the token is of the document that the chunk begins in: it sees the state before
    last: Tensor  # (n, c, 1): the token is of the document that the chunk ends in: it is seen by the state after
    whole: Tensor  # (n, 1, 1): no document begins inside the chunk: the state before is part of the state after


def documents(reset: Tensor | None, heads: int, tile: Tile, buffers: "Buffers") -> Documents | None:
    """reset (b, t) bool -> the masks of every system."""
    if reset is None:
        return None
    rows = len(range(*tile.rows.indices(reset.shape[0])))
    begun = buffers("begun", tile.n * rows * heads, tile.c, 1)
    run = tile.load(reset[:, :, None, None].expand(-1, -1, heads, 1), begun).cumsum(1)
    end, dtype = run[:, -1:], run.dtype
    return Documents((run == run.mT).to(dtype), (run == 0).to(dtype), (run == end).to(dtype), (end == 0).to(dtype))


class Buffers:
    """Memory by name, the same for every tile: pages touched once, and warm in cache."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._held: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        held = self._held.get(name)
        if held is None or held.shape != shape:
            held = self._held[name] = torch.empty(shape, dtype=self._like.dtype, device=self._like.device)
        return held
