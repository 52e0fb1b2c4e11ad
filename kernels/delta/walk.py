"""The pass over the chunks of a tile, forward and backward: three products a chunk each way, whatever the decays were.

A system, with S the state before its chunk, `read` = [q; a] (2 c rows) as decayed from the chunk's start:

    Y = R (given + a S);   O = q S + P values;   S' = keep S + writers^T values

R (c, c) is the inverse of I - A, A the scores of a on the keys that Y is written with. `delta` is given v, and its values are Y;
`dplr` is given A_ak v, and its values are [v; Y]. Batched products are written to contiguous memory only: others are done one by one.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Chunks(NamedTuple):
    """A tile's systems, ready for the walk; m = 1 (`delta`) or 2 (`dplr`) kinds of keys."""

    read: Tensor  # (n, 2 c, k)
    scores: Tensor  # (n, 2 c, m c): of q, then of a
    writers: Tensor  # (n, m c, k): keys decayed to the chunk's end
    keep: Tensor | None  # (n, k or 1, 1); None = 1
    solver: Tensor  # (n, c, c): R
    states: Tensor  # (n, k, v): written by `walk`
    values: Tensor  # (n, m c, v): the last c written by `walk`

    def steps(self, x: Tensor | None, systems: int) -> list[Tensor]:
        """x (n, ...) chunk by chunk, views (systems, ...)."""
        return [] if x is None else list(x.unflatten(0, (-1, systems)).unbind(0))


def walk(chunks: Chunks, s: Tensor, given: Tensor) -> Tensor:
    """Fill states and values from the state s (systems, k, v) before the tile; returns the state after it. given (n, c, v)."""
    systems, c = s.shape[0], given.shape[1]
    asks, writers, keeps = (chunks.steps(x, systems) for x in (chunks.read[:, c:], chunks.writers.mT, chunks.keep))
    gifts, solvers, states, values = (chunks.steps(x, systems) for x in (given, chunks.solver, chunks.states, chunks.values))
    last = torch.empty_like(s)
    states[0].copy_(s)
    for j, s in enumerate(states):
        x = torch.baddbmm(gifts[j], asks[j], s)
        if values[j].shape == x.shape:
            torch.bmm(solvers[j], x, out=values[j])
        else:
            values[j][:, c:] = torch.bmm(solvers[j], x)
        after = last if j + 1 == len(states) else states[j + 1]
        if keeps:
            torch.mul(s, keeps[j], out=after)
            torch.baddbmm(after, writers[j], values[j], out=after)
        else:
            torch.baddbmm(s, writers[j], values[j], out=after)
    return last


def outputs(chunks: Chunks, c: int, out: Tensor) -> Tensor:
    """O (n, c, v), after the walk."""
    torch.bmm(chunks.read[:, :c], chunks.states, out=out)
    return torch.baddbmm(out, chunks.scores[:, :c], chunks.values, out=out)


def walk_back(chunks: Chunks, both: Tensor, after: Tensor, ds: Tensor) -> Tensor:
    """From `both` (n, 2 c, v), its upper half filled with the gradient of O, and ds (systems, k, v), that of the state after the
    tile, write the gradients of the inverse's argument into the lower half of `both`, of the state after each chunk into
    `after` (n, k, v), and return that of the state before the tile."""
    systems, c = ds.shape[0], chunks.solver.shape[1]
    dy = torch.bmm(chunks.scores[:, :c, -c:].mT, both[:, :c])
    reads, writers, keeps = (chunks.steps(x, systems) for x in (chunks.read.mT, chunks.writers[:, -c:], chunks.keep))
    solvers, dys, boths, afters = (chunks.steps(x, systems) for x in (chunks.solver.mT, dy, both, after))
    afters[-1].copy_(ds)
    first = torch.empty_like(ds)
    for j in reversed(range(len(boths))):
        ds = afters[j]
        torch.baddbmm(dys[j], writers[j], ds, out=dys[j])
        boths[j][:, c:] = torch.bmm(solvers[j], dys[j])
        before = first if j == 0 else afters[j - 1]
        if keeps:
            torch.mul(ds, keeps[j], out=before)
            torch.baddbmm(before, reads[j], boths[j], out=before)
        else:
            torch.baddbmm(ds, reads[j], boths[j], out=before)
    return first


def walk_flops(c: int, m: int, k: int, v: int) -> int:
    """FLOPs of `walk`, of O and of what `dplr` (m = 2) is given, a system."""
    return 2 * c * v * (k + c + m * k + (k + m * c) + (m - 1) * c)
