"""Spans: some chunks of some rows of the batch, what is worked on at a time, so that its numbers stay in cache."""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

SPAN = 1 << 20  # numbers in a span's values and states, 4 MiB in float32


class Span(NamedTuple):
    """`chunks` chunks of `size` tokens each, from token `start` on, of some rows."""

    rows: slice
    start: int
    chunks: int
    size: int

    def of(self, x: Tensor) -> Tensor:
        """(b, t, ...) as this span's (c, rows, i, ...), a view."""
        here = x[self.rows, self.start : self.start + self.chunks * self.size]
        return here.unflatten(1, (self.chunks, self.size)).transpose(0, 1)

    def groups(self, x: Tensor, groups: int) -> Tensor:
        """(b, t, h, e) as this span's (c, rows, n, i, r, e), a view."""
        return self.of(x).unflatten(3, (groups, -1)).transpose(2, 3)

    def chunked(self, x: Tensor, groups: int, heads: int | None = None) -> Tensor:
        """(c rows n, i, e) as (c, rows, n, i, e), or with `heads` (c, rows, n, i, r, e); a view."""
        x = x.unflatten(0, (self.chunks, -1, groups))
        return x if heads is None else x.unflatten(-1, (heads, -1))


def spans(batch: int, length: int, size: int, numbers: int) -> Iterator[list[Span]]:
    """For each block of rows its spans in order; a chunk of one row has `numbers` numbers. What is left at the text's end is a
    span of one shorter chunk."""
    rows = max(i for i in range(1, batch + 1) if batch % i == 0 and (i == 1 or i * numbers <= SPAN))
    chunks = max(1, SPAN // (rows * numbers))
    whole = length // size
    for row in range(0, batch, rows):
        block = slice(row, row + rows)
        found = [Span(block, c * size, min(chunks, whole - c), size) for c in range(0, whole, chunks)]
        if length % size:
            found.append(Span(block, whole * size, 1, length % size))
        yield found
