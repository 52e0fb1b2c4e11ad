"""Core-context-aware attention: the far past by one pooled core a group of tokens, the near past token by token, in one softmax.

    cores_k, cores_v = pool(q_ends, k_groups, v_groups, pooling=, scale=)
    o = core_context(q, k, v, cores_k, cores_v, positions, group=, local=, documents=, core_documents=, scale=)

Group p of a document is its tokens p g .. p g + g - 1 (0-based, g = `group`). With the query of the group's last token, per query head,

    alpha = softmax over the group's tokens of scale q_last . k_t,    core key = sum alpha_t k_t,    core value = sum alpha_t v_t

of keys that already carry their position embedding; a core has no position of its own. The token at position x (0-based) sees

    B = g max(0, floor((x + 1 - local) / g))     tokens 0 .. B-1 by their B / g cores, tokens B .. x themselves:

from `local` to local + g - 1 of the latest tokens, or all of them where there are no more; nothing twice, nothing left out.
o = softmax(scale [q . cores_k ; q . k]) [cores_v ; v], scale 1/sqrt(e) by default. local >= all positions, or g = 1, is causal attention.

q (b, t, h, e); k (b, s, m, e), v (b, s, m, f) with m dividing h: the queries are the last t of the s keys, and keys that no query
needs may be gone. cores_k (b, p, h, e), cores_v (b, p, h, f): of each document all cores from its first on. positions (b, t)
int64 of the queries. documents (b, t) int64 of the queries, -1 = leading padding, whose output is 0, and core_documents (b, p),
non-decreasing, -1 = leading padding; None = one document.
Source: Core Context Aware Transformers, arXiv:2412.12465 (visibility and pooling as in its published code).
"""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from kernels.backends import Backends, LibraryBackend, serve
from kernels.core_context import chunked, reference
from kernels.core_context.chunked import executed_flops
from kernels.core_context.pool import POOLINGS, pool, pool_flops
from kernels.core_context.sight import boundary, sight
from kernels.opaque import opaque

__all__ = ["POOLINGS", "boundary", "core_context", "executed_flops", "flops", "pool", "pool_flops"]

BACKENDS: Backends[..., Tensor] = {
    "triton": LibraryBackend("kernels.core_context.triton", "core_context"),
    "chunked": chunked.core_context,
    "reference": reference.core_context,
}


def _outputs(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> tuple[Tensor]:
    return (q.new_empty(*q.shape[:3], v.shape[-1]),)


@opaque(_outputs, traced=0)
def core_context(
    q: Float[Tensor, "b t h e"],
    k: Float[Tensor, "b s m e"],
    v: Float[Tensor, "b s m f"],
    cores_k: Float[Tensor, "b p h e"],
    cores_v: Float[Tensor, "b p h f"],
    positions: Int[Tensor, "b t"],
    *,
    group: int,
    local: int,
    documents: Int[Tensor, "b t"] | None = None,
    core_documents: Int[Tensor, "b p"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "b t h f"]:
    """See the module. Raises ValueError unless heads, lengths, group and local fit."""
    (t, h), (s, m) = q.shape[1:3], k.shape[1:3]
    if h % m or t > s:
        raise ValueError(f"{h} query heads over {m} key heads, {t} queries over {s} keys: heads must divide, queries can't outnumber keys")
    if group < 1 or local < 1 or local % group:
        raise ValueError(f"local = {local} must be a positive multiple of group = {group}")
    if (documents is None) != (core_documents is None):
        raise ValueError("documents and core_documents come together")
    view = sight(positions, group, local, documents, core_documents, s)
    return serve("core_context", BACKENDS, q, k, v, cores_k, cores_v, view, scale=scale)


def flops(length: int, group: int, local: int, *, heads: int, key: int, value: int) -> int:
    """One document of `length` tokens from its start: a multiply-add an element of each visible core and key, and of its value.
    Pooling is `pool_flops`."""
    bounds = [boundary(x, group, local) for x in range(length)]
    pairs = sum(b // group + x + 1 - b for x, b in enumerate(bounds))
    return 2 * heads * (key + value) * pairs
