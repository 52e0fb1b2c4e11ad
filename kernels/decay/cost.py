"""FLOPs of the memory: what the recurrence needs, and what the matrix products of the chunked back end spend.

How long its chunks are depends on the decays. A ledger that knows none counts mild ones, `executed_flops`; what the decays of a call
add to that or save, `strong_flops`.
"""

from typing import Any, Literal, NamedTuple

from torch import Tensor

from kernels.decay import exact, vector
from kernels.decay.chunked import CHUNK, mild_size
from kernels.decay.tiles import Gate, split
from kernels.dtypes import LOG2E, wide


def flops(length: int, heads: int, k: int, v: int, *, queries: int | None = None) -> int:
    """What the recurrence needs: a token and head writes k v^T, a token and query reads S^T q, each a multiply-add an entry of S.
    queries: of all heads together, None = one a head."""
    return 2 * length * (heads + (queries or heads)) * k * v


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
    """Matrix products of the chunked back end: scores, their product with the values, and the chunks' writes to and reads of the
    state; one token is one step of the recurrence. `leaf` is for decays too strong to be factored (kernels/decay/exact.py), whose
    last chunk is filled: a scalar gate's chunks are whole, leaf = chunk; a vector gate's are halved down to leaves of that many
    tokens, which saves scores. With leaf = chunk it is the most that any decays cost."""
    if length == 1:
        return 4 * heads * k * v
    size, scored = min(chunk or CHUNK, length), heads if gate == "vector" else groups or heads
    if leaf is not None:
        size = exact.tile(size, gate)
        return -(-length // size) * size * (scored * (size + leaf) * k + heads * (2 * size * v + 4 * k * v))
    return sum(
        tokens * (scored * 2 * part * k + heads * (2 * part * v + 4 * k * v))
        for tokens, part in ((length // size * size, size), (length % size, length % size))
    )


class Chunks(NamedTuple):
    """`chunk` and `leaf` of `executed_flops` as the chunked back end chooses them."""

    chunk: int
    leaf: int | None


def chunks(g: Tensor | None, length: int, chunk: int | None = None) -> Chunks:
    """The chunks in which texts of `length` tokens with the log decays g are worked on; the strongest decay of a batch rules."""
    longest = min(chunk or CHUNK, length)
    size = mild_size(g, longest)
    if g is None or size is not None:
        return Chunks(size or longest, None)
    if g.ndim == 3:
        return Chunks(longest, longest)
    tile = exact.tile(longest, "vector")
    return Chunks(tile, vector.mild_leaf(split(wide(g), tile).transpose(2, 3) * LOG2E))


def strong_flops(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None = None, *_: Any, chunk: int | None = None, **__: Any) -> int:
    """What the chunked back end spends on `decay(q, k, v, g, ...)` beyond `executed_flops` of mild decays: 0 if these are mild,
    negative if shorter chunks save scores."""
    b, t, h, width = v.shape
    heads = max(q.shape[2], h)
    gate: Literal["vector", "scalar"] = "vector" if g is not None and g.ndim == 4 else "scalar"
    sizes = (t, heads, k.shape[3], width)
    groups = None if q.shape[2] > h else k.shape[2]
    spent, mild = (
        executed_flops(*sizes, groups=groups, gate=gate, chunk=at.chunk, leaf=at.leaf)
        for at in (chunks(g, t, chunk), Chunks(chunk or CHUNK, None))
    )
    return b * (spent - mild)
