"""Tiles of tokens as matrix products, exact for any decay, in plain steps that autograd follows."""

from torch import Tensor

from kernels.decay import scalar, vector
from kernels.decay.tiles import Gate, pass_states, segments, split
from kernels.dtypes import wide


def tile(size: int, gate: Gate) -> int:
    """Tokens of a tile: with a vector gate the next power of two, because it is halved."""
    return 1 << (size - 1).bit_length() if gate == "vector" else size


def decay(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    state: Tensor | None = None,
    *,
    bonus: Tensor | None = None,
    reset: Tensor | None = None,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    b, t, h, _ = v.shape
    by_channel = g is not None and g.ndim == 4
    n = q.shape[2]
    size = tile(chunk, "vector" if by_channel else "scalar")
    queries, keys = (split(wide(x), size).transpose(2, 3) for x in (q, k))  # (b, c, n, i, k)
    values = split(wide(v), size).unflatten(3, (n, -1)).transpose(2, 3)  # (b, c, n, i, r, v)
    u = None if bonus is None else wide(bonus).unflatten(0, (n, -1))
    segment = segments(reset, size)
    if by_channel:
        assert g is not None
        tiles = vector.within(queries, keys, values, split(wide(g), size).transpose(2, 3), u, segment)
    else:
        gates = None if g is None else split(wide(g), size).unflatten(3, (n, -1)).transpose(2, 3)  # (b, c, n, i, r)
        tiles = scalar.within(queries, keys, values, gates, u, segment)
    written = (tiles.k.mT @ tiles.v.flatten(-2)).unflatten(-1, values.shape[-2:])  # (b, c, n, k, r, v)
    first = written.new_zeros(written[:, 0].shape) if state is None else wide(state).unflatten(1, (n, -1)).transpose(2, 3)
    before, last = pass_states(first, written, tiles.carry)
    read = (tiles.q @ before.flatten(-2)).unflatten(-1, values.shape[-2:])
    out = tiles.inner + (read if tiles.enter is None else tiles.enter * read)  # (b, c, n, i, r, v)
    out = out.transpose(2, 3).reshape(b, -1, h, v.shape[-1])[:, :t]
    return out.to(v.dtype), last.transpose(2, 3).flatten(1, 2)
