"""Decayed outer-product memory, the recurrence of linear attention and of diagonal state-space models.

    S_t = diag(exp g_t) S_{t-1} + k_t v_t^T          o_t = S_t^T q_t
    with a bonus u:                                  o_t = (S_{t-1} + diag(u) k_t v_t^T)^T q_t

    o, state = decay(q, k, v, g, state, bonus=, reset=, chunk=)

q, k (b, t, n, k) with n groups that divide the h heads: head i reads group i // (h / n) (Mamba-2's groups, shared keys);
v (b, t, h, v); g log decay, <= 0: None (nothing is forgotten), (b, t, h) one scalar a head, or (b, t, h, k) one a key
channel; state (b, h, k, v), None = zeros; bonus (h, k); reset (b, t) bool, first tokens of new documents: the memory
before them is forgotten. A token with k = 0 and g = 0 leaves the state exactly as it was. No scale is applied inside. Returns
o (b, t, h, v) in v's dtype and the state after the last token, at least float32.
q may also be (b, t, r h, k), beside k (b, t, h, k): r queries read each head's memory, query i that of head i // r, and o is
(b, t, r h, v) (grouped queries).
chunk is the longest chunk of the chunked back end, which halves it where a decay is strong; it never changes a result by more than
rounding.

Sources: linear attention arXiv:2006.16236, gated linear attention arXiv:2312.06635 (chunked form, secondary chunks),
state space duality arXiv:2405.21060 (scalar gate, groups), RWKV-6 arXiv:2404.05892 (bonus).
"""

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from kernels.backends import Backends, LibraryBackend, serve, with_step
from kernels.decay import chunked, reference, step
from kernels.decay.cost import executed_flops, flops, strong_flops
from kernels.decay.queries import repeated
from kernels.decay.tiles import Gate
from kernels.dtypes import wide
from kernels.opaque import opaque

__all__ = ["Gate", "decay", "executed_flops", "flops", "strong_flops"]

BACKENDS: Backends[..., tuple[Tensor, Tensor]] = {
    "mamba_ssm": LibraryBackend("kernels.decay.mamba_ssm", "decay"),
    "fla": LibraryBackend("kernels.decay.fla", "decay"),
    "chunked": repeated(chunked.decay),
    "reference": reference.decay,
}
STEP = with_step(BACKENDS, step.decay)


def _outputs(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    o = v if q.shape[2] <= v.shape[2] else v.new_empty(*q.shape[:3], v.shape[3])
    return o, wide(v[:0]).new_empty(v.shape[0], v.shape[2], q.shape[3], v.shape[3])


@opaque(_outputs)
def decay(
    q: Float[Tensor, "b t n k"],
    k: Float[Tensor, "b t m k"],
    v: Float[Tensor, "b t h v"],
    g: Float[Tensor, "b t h"] | Float[Tensor, "b t h k"] | None = None,
    state: Float[Tensor, "b h k v"] | None = None,
    *,
    bonus: Float[Tensor, "h k"] | None = None,
    reset: Bool[Tensor, "b t"] | None = None,
    chunk: int | None = None,
) -> tuple[Float[Tensor, "b t o v"], Float[Tensor, "b h k v"]]:
    """See the module. Raises ValueError if the heads of q, k and v don't go together or the chunk isn't positive."""
    fit(q, k, v)
    if chunk is not None and chunk < 1:
        raise ValueError(f"decay: chunk = {chunk} must be at least 1")
    return serve("decay", STEP if v.shape[1] == 1 else BACKENDS, q, k, v, g, state, bonus=bonus, reset=reset, chunk=chunk)


def fit(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise ValueError unless q and k are groups of v's heads, or q several queries of each head."""
    queries, keys, heads = (x.shape[2] for x in (q, k, v))
    if queries > heads and (keys != heads or queries % heads):
        raise ValueError(f"decay: {queries} queries don't share the memories of {keys} keys and {heads} heads of v")
    if queries <= heads and (queries != keys or heads % queries):
        raise ValueError(f"decay: {queries} groups of q and {keys} of k don't divide {heads} heads of v")
