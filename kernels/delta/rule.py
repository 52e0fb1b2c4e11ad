"""One recurrence for `delta` and `dplr`, forward and backward, tile by tile (see `chunked`).

The backward pass is written out: it keeps each chunk's state, its values and its inverse, computes the scores again, and walks
the tiles from the last to the first.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from kernels.delta.chunks import Buffers, Layout, Tile, documents
from kernels.delta.scalar import Scalar
from kernels.delta.triangular import inverse
from kernels.delta.vector import Vector
from kernels.delta.walk import Chunks, outputs, walk, walk_back
from kernels.dtypes import wide


class Arguments(NamedTuple):
    """What either operation reads: beta is of `delta`, a and b are of `dplr`."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor | None  # (b, t, h) or (b, t, h, k)
    state: Tensor  # (b, h, k, v)
    reset: Tensor | None
    beta: Tensor | None
    a: Tensor | None
    b: Tensor | None


class Part(NamedTuple):
    """A tile of them, scored, and what the gradients need."""

    scored: Scalar | Vector
    v: Tensor  # (n, c, v)
    k: Tensor  # (n, c, k)
    beta: Tensor | None  # (n, c, 1)

    def given(self, chunks: Chunks) -> Tensor:
        """What Y begins from (n, c, v): v, or what a reads of the chunk's own v."""
        c = self.v.shape[1]
        return self.v if self.beta is not None else torch.bmm(chunks.scores[:, c:, :c], self.v)


def _read(x: Arguments, tile: Tile, buffers: Buffers) -> Part:
    (b, _, h, e), c = x.k.shape, tile.c
    n = tile.n * h * len(range(*tile.rows.indices(b)))
    m = 1 if x.b is None else 2
    rows, keys = buffers("rows", n, 2 * c, e), buffers("keys", n, m * c, e)
    v = tile.load(x.v, buffers("v", n, c, x.v.shape[-1]))
    beta = None if x.beta is None else tile.load(x.beta[..., None], buffers("beta", n, c, 1))
    tile.load(x.q, rows[:, :c])
    if beta is not None:
        k = tile.load(x.k, buffers("k", n, c, e))
        rows[:, c:].copy_(k).neg_()
        torch.mul(k, beta, out=keys)
    else:
        assert x.a is not None
        assert x.b is not None
        k = tile.load(x.k, keys[:, :c])
        tile.load(x.b, keys[:, c:])
        tile.load(x.a, rows[:, c:])
    docs = documents(x.reset, h, tile, buffers)
    if x.g is not None and x.g.ndim == 4:
        g = tile.load(x.g, buffers("g", n, c, e))
        return Part(Vector(rows, keys, g, x.beta is None, docs, buffers), v, k, beta)
    decay = None if x.g is None else tile.load(x.g[..., None], buffers("g", n, c, 1))[:, :, 0]
    return Part(Scalar(rows, keys, decay, docs, buffers), v, k, beta)


def forward(layout: Layout, x: Arguments) -> tuple[Tensor, Tensor, list[Tensor]]:
    """o (b, t, h, v), the last state (b, h, k, v), and what `backward` needs: a tile's inverses, states and values, tile by tile."""
    o, last = torch.empty(x.v.shape, dtype=x.v.dtype, device=x.v.device), torch.empty_like(x.state)
    buffers, kept = Buffers(x.state), []
    for rows, tiles in layout.walks():
        s = x.state[rows].flatten(0, 1)
        for tile in tiles:
            part = _read(x, tile, buffers)
            chunks = _start(part)
            s = walk(chunks, s, part.given(chunks))
            tile.store(outputs(chunks, tile.c, buffers("o", *part.v.shape)), o)
            kept += [chunks.solver, chunks.states, chunks.values]
        last[rows] = s.view(last[rows].shape)
    return o, last, kept


def backward(layout: Layout, x: Arguments, kept: list[Tensor], do: Tensor, d_last: Tensor) -> Arguments:
    """The gradients of all arguments but `reset`. kept is used up."""
    grads = Arguments(*(None if i is None or i.dtype == torch.bool else torch.empty_like(i) for i in x))  # type: ignore[arg-type]
    buffers = Buffers(x.state)
    with torch.autocast(do.device.type, enabled=False):
        for rows, tiles in reversed(list(layout.walks())):
            ds = wide(d_last[rows]).flatten(0, 1)
            for tile in reversed(tiles):
                values, states, solver = kept.pop(), kept.pop(), kept.pop()
                ds = _back(x, tile, (solver, states, values), do, ds, grads, buffers)
            grads.state[rows] = ds.view(grads.state[rows].shape)
    return grads


def _start(part: Part) -> Chunks:
    """Ready for the walk, which is to fill states and values."""
    scored, (n, c, v) = part.scored, part.v.shape
    _, rows, k = scored.writers.shape
    values = part.v.new_empty(n, rows, v)
    if rows > c:
        values[:, :c] = part.v
    solver = inverse(scored.scores[:, c:, -c:])
    return Chunks(scored.read, scored.scores, scored.writers, scored.keep, solver, part.v.new_empty(n, k, v), values)


def _back(
    x: Arguments, tile: Tile, kept: tuple[Tensor, Tensor, Tensor], do: Tensor, ds: Tensor, grads: Arguments, buffers: Buffers
) -> Tensor:
    """Write a tile's gradients; from that of the state after it (systems, k, v) to that of the state before it, which is returned."""
    part = _read(x, tile, buffers)
    scored, (n, c, v) = part.scored, part.v.shape
    chunks = Chunks(scored.read, scored.scores, scored.writers, scored.keep, *kept)
    both, after = buffers("both", n, 2 * c, v), buffers("after", n, *ds.shape[1:])
    tile.load(do, both[:, :c])
    ds = walk_back(chunks, both, after, ds)
    d_read = torch.bmm(both, chunks.states.mT, out=buffers("d_read", *chunks.read.shape))
    d_scores = torch.bmm(both, chunks.values.mT, out=buffers("d_scores", *chunks.scores.shape))
    d_writers = torch.bmm(chunks.values, after.mT, out=buffers("d_writers", *chunks.writers.shape))
    dv = both[:, c:]
    if x.beta is None:
        dv = torch.baddbmm(torch.bmm(chunks.scores[:, :, :c].mT, both), chunks.writers[:, :c], after)
    tile.store(dv, grads.v)
    d_keep = None if x.g is None else torch.mul(after, chunks.states, out=after).sum(-1)
    d_rows, d_keys, dg = scored.backward(d_read, d_scores, d_writers, d_keep)
    tile.store(d_rows[:, :c], grads.q)
    _store_keys(part, d_rows[:, c:], d_keys, tile, grads)
    if grads.g is not None and dg is not None:
        tile.store(dg if grads.g.ndim == 4 else dg[..., None], grads.g if grads.g.ndim == 4 else grads.g[..., None])
    return ds


def _store_keys(part: Part, da: Tensor, d_keys: Tensor, tile: Tile, grads: Arguments) -> None:
    """What `_read` made a and the keys of gets their gradients da (n, c, k) and d_keys (n, m c, k)."""
    if part.beta is not None and grads.beta is not None:
        tile.store((d_keys * part.k).sum(2, keepdim=True), grads.beta[..., None])
        tile.store(torch.addcmul(-da, d_keys, part.beta), grads.k)
    elif grads.a is not None and grads.b is not None:
        tile.store(d_keys[:, : tile.c], grads.k)
        tile.store(d_keys[:, tile.c :], grads.b)
        tile.store(da, grads.a)
