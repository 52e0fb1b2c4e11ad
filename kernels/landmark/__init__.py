"""Landmark attention: each block of text ends in a landmark token, and a block is read through its landmark.

    o = landmark(q, k, v, landmarks, documents=, top_k=, scale=)

q (b, t, h, e); k (b, s, m, e), v (b, s, m, f) with m dividing h; the queries are the last t of the s keys, in order.
landmarks (b, s) bool marks the landmark tokens: a landmark belongs to the block it closes, and a document (documents (b, s)
int64, -1 = leading padding, None = one document) begins a new block. With l_ij = scale q_i . k_j, scale 1/sqrt(e) by default,
query i of block B mixes, by a softmax each:

    main    P    over the regular keys j <= i of block B and the landmarks of all earlier blocks of its document
    inside  P_c  over the regular keys of each earlier block c
    o_i = sum_{j in B} P_j v_j + sum_{c < B} P_{landmark of c} sum_{j in c} P_c,j v_j

The weights of a row sum to 1 where no earlier block is empty. A landmark's value is never mixed in, the landmark of the query's own
block is masked (for itself too), and a query that sees nothing gives 0. top_k: each query and head keeps only the top_k earlier
blocks of largest landmark score (of equal scores the earlier block); no gradient flows through the choice.
Source: Landmark Attention, arXiv:2305.16300.
"""

from bisect import insort
from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from kernels.backends import Backends, LibraryBackend, serve
from kernels.landmark import chunked, reference
from kernels.landmark.chunked import executed_flops
from kernels.opaque import opaque

__all__ = ["executed_flops", "flops", "landmark"]

BACKENDS: Backends[..., Tensor] = {
    "triton": LibraryBackend("kernels.landmark.triton", "landmark"),
    "chunked": chunked.landmark,
    "reference": reference.landmark,
}


def _outputs(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> tuple[Tensor]:
    return (q.new_empty(*q.shape[:3], v.shape[-1]),)


@opaque(_outputs, traced=0)
def landmark(
    q: Float[Tensor, "b t h e"],
    k: Float[Tensor, "b s m e"],
    v: Float[Tensor, "b s m f"],
    landmarks: Bool[Tensor, "b s"],
    *,
    documents: Int[Tensor, "b s"] | None = None,
    top_k: int | None = None,
    scale: float | None = None,
) -> Float[Tensor, "b t h f"]:
    """See the module. Raises ValueError unless heads, lengths and top_k fit."""
    (t, h), (s, m) = q.shape[1:3], k.shape[1:3]
    if h % m or t > s:
        raise ValueError(f"{h} query heads over {m} key heads, {t} queries over {s} keys: heads must divide, queries can't outnumber keys")
    if top_k is not None and top_k < 0:
        raise ValueError(f"top_k = {top_k}: must be None (all blocks) or at least 0")
    return serve("landmark", BACKENDS, q, k, v, landmarks, documents=documents, top_k=top_k, scale=scale)


def flops(landmarks: Sequence[bool], *, heads: int, key: int, value: int, top_k: int | None = None) -> int:
    """One document from its start, landmarks[i] = token i is one: a multiply-add an element of each score (own block, earlier
    landmarks, keys of the blocks that are read) and of each value that is mixed in. Where blocks differ in length, top_k
    counts the longest ones."""
    dots, mixes, own = 0, 0, 0
    lengths: list[int] = []  # of the closed blocks, ascending
    read = 0
    for mark in landmarks:
        own += not mark
        dots += own + len(lengths) + read
        mixes += own + read
        if mark:
            insort(lengths, own)
            own = 0
            read = sum(lengths if top_k is None else lengths[max(len(lengths) - top_k, 0) :])
    return 2 * heads * (key * dots + value * mixes)
