"""Tiles of tokens as matrix products; only the states between tiles are passed one after another."""

from torch import Tensor

from kernels.decay import scalar, vector
from kernels.decay.tiles import Gate, pass_states, segments, split
from kernels.dtypes import wide

CHUNK = 64  # the fastest tile on a CPU at key and value widths of 64 to 128; a matrix product of it fills a core


def tile(length: int, gate: Gate, chunk: int | None = None) -> int:
    """Tokens of a tile: `chunk` or the text's length; with a vector gate the next power of two, because it is halved."""
    size = min(chunk or CHUNK, length)
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
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    b, t, h, _ = v.shape
    by_channel = g is not None and g.ndim == 4
    if by_channel and q.shape[2] < h:  # every head decays the scores its own way: nothing is shared in a group
        q, k = (x.repeat_interleave(h // x.shape[2], 2) for x in (q, k))
    n = q.shape[2]
    size = tile(t, "vector" if by_channel else "scalar", chunk)
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


def executed_flops(
    length: int,
    heads: int,
    k: int,
    v: int,
    *,
    groups: int | None = None,
    gate: Gate = "scalar",
    chunk: int | None = None,
    leaf: int | None = None,
) -> int:
    """Matrix products of the chunked room, the fill of the last tile included: scores, their product with the values, and
    the tiles' writes to and reads of the state. A vector gate that decays by more than 2^-50 in a tile spends less: its
    scores are products only down to leaves of `leaf` tokens (a quarter of the tile, a sixteenth, .. or 1)."""
    size = tile(length, gate, chunk)
    scored = heads * (size + (leaf or size)) * k if gate == "vector" else (groups or heads) * 2 * size * k
    return -(-length // size) * size * (scored + heads * (2 * size * v + 4 * k * v))
