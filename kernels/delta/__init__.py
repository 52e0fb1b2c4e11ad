"""The delta rule: a matrix memory that is corrected, not only added to. Two operations, all per head, S the state (k x v).

    o, state = delta(q, k, v, g, beta, state, reset=)         S- = diag(e^g) S;  S = S- + beta k (v - S-^T k)^T;  o = S^T q
    o, state = dplr(q, w, k, v, a, b, state, reset=)          S = diag(e^w) S + b (S^T a)^T + k v^T;              o = S^T q

`delta` corrects the *decayed* state: DeltaNet (g None, arXiv:2406.06484), Gated DeltaNet (a scalar g, arXiv:2412.06464), Kimi
Delta Attention (g a vector over keys, arXiv:2510.26692). `dplr` (diagonal plus low rank) reads the *undecayed* state with a and
writes what it read with b: RWKV-7 (arXiv:2503.14456) has a = -kappa, b = kappa * rate.

q, k, w, a, b (b, t, h, k); v, o (b, t, h, v); beta (b, t, h); g (b, t, h) or (b, t, h, k); g and w are log decays <= 0. state
(b, h, k, v) float32 (float64 stays), None = start of text; reset (b, t) bool, first tokens of new documents. Nothing is scaled
and nothing normalised here: with |k| = 1 and beta in (0, 2) (for dplr: b = -rate a, |a| = 1) a state can't grow by being corrected. A
token with k = 0 (dplr: a = b = k = 0) and a log decay of 0 leaves the state as it was. `chunk` (a power of two) is the chunk length of the
chunked back end. Everything is computed in float32 or float64, also under autocast.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kernels.backends import Backends, LibraryBackend, serve, with_step
from kernels.delta import chunked, reference
from kernels.dtypes import wide
from kernels.opaque import opaque

__all__ = ["delta", "dplr", "dplr_executed_flops", "dplr_flops", "executed_flops", "flops"]

Served = Backends[..., tuple[Tensor, Tensor]]
DELTA: Served = {"fla": LibraryBackend("kernels.delta.fla", "delta"), "chunked": chunked.delta, "reference": reference.delta}
DPLR: Served = {"fla": LibraryBackend("kernels.delta.fla", "dplr"), "chunked": chunked.dplr, "reference": reference.dplr}
DELTA_STEP, DPLR_STEP = with_step(DELTA, reference.delta), with_step(DPLR, reference.dplr)


def _delta_outputs(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    return v, wide(v[:0]).new_empty(k.shape[0], k.shape[2], k.shape[3], v.shape[3])


def _dplr_outputs(q: Tensor, w: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    return _delta_outputs(q, k, v)


@opaque(_delta_outputs)
def delta(
    q: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    g: Float[Tensor, "b t h"] | Float[Tensor, "b t h k"] | None,
    beta: Float[Tensor, "b t h"],
    state: Float[Tensor, "b h k v"] | None = None,
    *,
    reset: Bool[Tensor, "b t"] | None = None,
    chunk: int | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v"]]:
    """See the module. Returns o in v's dtype and the state after it."""
    with torch.autocast(q.device.type, enabled=False):
        return serve("delta", DELTA_STEP if q.shape[1] == 1 else DELTA, q, k, v, g, beta, state, reset=reset, chunk=chunk)


@opaque(_dplr_outputs)
def dplr(
    q: Float[Tensor, "b t h k"],
    w: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    a: Float[Tensor, "b t h k"],
    b: Float[Tensor, "b t h k"],
    state: Float[Tensor, "b h k v"] | None = None,
    *,
    reset: Bool[Tensor, "b t"] | None = None,
    chunk: int | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v"]]:
    """See the module. Returns o in v's dtype and the state after it."""
    with torch.autocast(q.device.type, enabled=False):
        return serve("dplr", DPLR_STEP if q.shape[1] == 1 else DPLR, q, w, k, v, a, b, state, reset=reset, chunk=chunk)


def flops(length: int, heads: int, k: int, v: int) -> int:
    """What `delta` needs: a token and head reads the state with k, writes to it and reads it with q."""
    return length * heads * 3 * 2 * k * v


def dplr_flops(length: int, heads: int, k: int, v: int) -> int:
    """What `dplr` needs: a token and head reads the state with a, writes to it twice and reads it with q."""
    return length * heads * 4 * 2 * k * v


def executed_flops(length: int, heads: int, k: int, v: int, *, vector: bool, chunk: int | None = None) -> int:
    """What the chunked back end of `delta` spends in matmuls; vector: g has a decay for every channel of k.
    Channels that a chunk decays by more than 2^-60 cost a little less in matmuls, and more time."""
    return chunked.delta_flops(length, heads, k, v, vector=vector, chunk=chunk)


def dplr_executed_flops(length: int, heads: int, k: int, v: int, *, chunk: int | None = None) -> int:
    """What the chunked back end of `dplr` spends in matmuls."""
    return chunked.dplr_flops(length, heads, k, v, chunk=chunk)
