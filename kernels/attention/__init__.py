"""Softmax attention over a causal mask: o_i = sum_j softmax_j(scale q_i k_j) v_j over the keys j that query i sees.

    o = attention(q, k, v, ...)                 # (b, t, h, w)
    o = differential(q, k, v, mix, ...)         # (b, t, h, w): (softmax_1 - mix softmax_2) v

q (b, t, h, e); k (b, s, m, e), v (b, s, m, w) with m dividing h: query head i uses key head i // (h / m). The queries are the
last t of the s keys. Query i sees key j if all of these hold:

    order:     j is not after i in the row;
    documents: both are of the same document (>= 0; padding is -1). Documents do not decrease along a row, padding leads;
    window:    fewer than `window` keys lie from j to i (i itself counts), or j is one of the first `sink_tokens` keys of its document.

Distances and sinks are counted in keys, which is also right for a cache that was trimmed to its sinks and its last window - 1
keys. With k_positions sinks are told by position (packed rows need that), with q_positions as well the distance is q_position -
k_position: positions grow along a document. A query that sees nothing gives 0. Options of the score s = scale q k (scale None =
e^-1/2): `softcap` c tanh(s / c), before the mask (Gemma 2, arXiv:2408.00118); `sink_logits` (h), a learned extra logit in the
denominator (gpt-oss). Sources: arXiv:1706.03762, GQA arXiv:2305.13245, sinks arXiv:2309.17453, differential arXiv:2410.05258.
"""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from kernels.attention import chunked, reference
from kernels.attention.cost import SDPA_FLOPS, executed_flops, flops, visible_pairs
from kernels.attention.visible import sight
from kernels.backends import Backends, LibraryBackend, serve
from kernels.opaque import opaque

__all__ = ["SDPA_FLOPS", "attention", "differential", "executed_flops", "flops", "visible_pairs"]

BACKENDS: Backends[..., Tensor] = {
    "fused": LibraryBackend("kernels.attention.fused", "attention"),  # the plain calls of a GPU; no backend names it
    "triton": LibraryBackend("kernels.attention.triton", "attention"),
    "chunked": chunked.attention,
    "reference": reference.attention,
}
DIFFERENTIAL_BACKENDS: Backends[..., Tensor] = {
    "triton": LibraryBackend("kernels.attention.triton", "differential"),
    "chunked": chunked.differential,
    "reference": reference.differential,
}


def _outputs(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> tuple[Tensor]:
    return (q.new_empty(*q.shape[:2], q.shape[-2], v.shape[-1]),)


@opaque(_outputs)
def attention(
    q: Float[Tensor, "b t h e"],
    k: Float[Tensor, "b s m e"],
    v: Float[Tensor, "b s m w"],
    *,
    q_positions: Int[Tensor, "b t"] | None = None,
    k_positions: Int[Tensor, "b s"] | None = None,
    q_documents: Int[Tensor, "b t"] | None = None,
    k_documents: Int[Tensor, "b s"] | None = None,
    window: int | None = None,
    sink_tokens: int = 0,
    softcap: float | None = None,
    sink_logits: Float[Tensor, "h"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "b t h w"]:
    """See the module. Returns o in q's dtype; ValueError where the arguments contradict one another."""
    view = sight(q.shape[1], k.shape[1], q_positions, k_positions, q_documents, k_documents, window, sink_tokens)
    return serve("attention", BACKENDS, q, k, v, view, softcap=softcap, sink_logits=sink_logits, scale=scale)


@opaque(_outputs)
def differential(
    q: Float[Tensor, "b t 2 h e"],
    k: Float[Tensor, "b s n m e"],
    v: Float[Tensor, "b s m w"],
    mix: Float[Tensor, "b t h"],
    *,
    q_positions: Int[Tensor, "b t"] | None = None,
    k_positions: Int[Tensor, "b s"] | None = None,
    q_documents: Int[Tensor, "b t"] | None = None,
    k_documents: Int[Tensor, "b s"] | None = None,
    window: int | None = None,
    sink_tokens: int = 0,
    scale: float | None = None,
) -> Float[Tensor, "b t h w"]:
    """o = (softmax(q_0 k_0) - mix softmax(q_1 k_1)) v, the maps subtracted before they meet the values.

    k has n = 2 sets of keys, one a map, or n = 1 that both maps share.
    """
    view = sight(q.shape[1], k.shape[1], q_positions, k_positions, q_documents, k_documents, window, sink_tokens)
    return serve("differential attention", DIFFERENTIAL_BACKENDS, q, k, v, mix, view, scale=scale)
