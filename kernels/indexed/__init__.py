"""Attention to the keys that an indexer picks (DeepSeek sparse attention, arXiv:2512.02556): score all keys cheaply, attend to few.

    chosen = select(index_q, index_k, weights, top_k=, ...)          # (b, t, top_k) int64
    o = indexed(q, keys, chosen, value_dim=, scale=)                 # (b, t, h, value_dim)

    I_ij = sum_n weights_in relu(index_q_in . index_k_j)             of the keys j that query i sees: not after it, of its document
    chosen_i = the top_k of them by I, best first; -1 fills what is left over; of equal scores the later key
    o_i = sum over j in chosen_i of softmax_j(scale q_i . k_j) k_j[:value_dim]          one key head for all h query heads

The queries are the last t of the s keys; a query that sees nothing gives 0. `select` has no gradient, as published: its projections are
trained by a loss of their own or not at all. index_q (b, t, n, c), index_k (b, s, c), weights (b, t, n); q (b, t, h, e), keys (b, s, e),
whose first value_dim columns are the values (a latent with its rotary key beside it). Documents as in kernels.attention.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kernels.attention import visible_pairs
from kernels.attention.visible import sight
from kernels.backends import Backends, serve
from kernels.indexed import chunked, reference
from kernels.indexed.chunked import executed_flops, executed_select_flops
from kernels.opaque import opaque

__all__ = ["executed_flops", "executed_select_flops", "flops", "indexed", "select", "select_flops"]

SELECT_BACKENDS: Backends[..., Tensor] = {"chunked": chunked.select, "reference": reference.select}
BACKENDS: Backends[..., Tensor] = {"chunked": chunked.indexed, "reference": reference.indexed}


def _chosen(index_q: Tensor, *_: Any, top_k: int, **__: Any) -> tuple[Tensor]:
    return (index_q.new_empty(*index_q.shape[:2], top_k, dtype=torch.int64),)


def _outputs(q: Tensor, *_: Any, value_dim: int, **__: Any) -> tuple[Tensor]:
    return (q.new_empty(*q.shape[:3], value_dim),)


@torch.no_grad()
@opaque(_chosen, traced=0)
def select(
    index_q: Float[Tensor, "b t n c"],
    index_k: Float[Tensor, "b s c"],
    weights: Float[Tensor, "b t n"],
    *,
    top_k: int,
    q_documents: Int[Tensor, "b t"] | None = None,
    k_documents: Int[Tensor, "b s"] | None = None,
) -> Int[Tensor, "b t top_k"]:
    """See the module. Scores at least in float32."""
    view = sight(index_q.shape[1], index_k.shape[1], None, None, q_documents, k_documents, None, 0)
    with torch.autocast(index_q.device.type, enabled=False):
        return serve("select", SELECT_BACKENDS, index_q, index_k, weights, view, top_k=top_k)


@opaque(_outputs, traced=0)
def indexed(
    q: Float[Tensor, "b t h e"],
    keys: Float[Tensor, "b s e"],
    chosen: Int[Tensor, "b t top_k"],
    *,
    value_dim: int,
    scale: float,
) -> Float[Tensor, "b t h value_dim"]:
    """See the module."""
    return serve("indexed attention", BACKENDS, q, keys, chosen, value_dim=value_dim, scale=scale)


def select_flops(length: int, heads: int, width: int) -> int:
    """Scores of all visible pairs of one document: `heads` products of `width` channels and their weighted sum."""
    return 2 * heads * (width + 1) * visible_pairs(length)


def flops(length: int, heads: int, key: int, value: int, top_k: int) -> int:
    """Scores and weighted values of the chosen pairs of one document."""
    return 2 * heads * (key + value) * visible_pairs(length, top_k)
