"""Chunk kernels of flash-linear-attention 0.6: the delta rule without a gate, with a scalar (Gated DeltaNet), with a vector (Kimi
Delta Attention), and diagonal plus low rank (RWKV-7).

Up to SHORT tokens whose gradient nobody asks for (decoding) go through the library's recurrences, which have no backward. The
kernels multiply in v's dtype; decays, sums and states are float32.
"""

from functools import partial
from typing import Any

import torch
from fla.ops.delta_rule import chunk_delta_rule
from fla.ops.gated_delta_rule import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule
from fla.ops.generalized_delta_rule import chunk_dplr_delta_rule, fused_recurrent_dplr_delta_rule
from fla.ops.kda import chunk_kda
from torch import Tensor

from kernels.flash_linear_attention import by_documents, is_short, log_decays, loses_gates, refuses


def refuses_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    beta: Tensor,
    state: Tensor | None = None,
    *,
    reset: Tensor | None = None,
    chunk: int | None = None,
) -> str | None:
    gate = beta if g is None and v.dtype == torch.float32 else g if g is not None and g.ndim == 3 else None
    return refuses((q, k, v), (g, beta, state)) or loses_gates(gate, q, k, v, beta, state)


def refuses_dplr(
    q: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor | None = None,
    *,
    reset: Tensor | None = None,
    chunk: int | None = None,
) -> str | None:
    why = refuses((q, a, b, k, v), (w, state))
    if why is None and v.dtype == torch.float32 and v.is_cuda and not is_short(q, w, k, v, a, b, state):
        why = "flash-linear-attention's chunk kernel of this form is not made for float32"
    return why


@torch.compiler.disable
def delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    beta: Tensor,
    state: Tensor | None = None,
    *,
    reset: Tensor | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """`chunk` belongs to the chunked back end: each kernel here has its own."""
    short = is_short(q, k, v, g, beta, state)
    start, gates = None if state is None else state.float(), log_decays(g)
    q, k = q.to(v.dtype), k.to(v.dtype)
    o, final = by_documents(_recurrence if short else _chunks, (q, k, v, gates, beta.float()), start, reset)
    return o.to(v.dtype), final


def _chunks(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, beta: Tensor, state: Tensor | None, offsets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The library's kernel without a gate wants 16 bits; in float32 a gate of zeros does."""
    if g is None and v.dtype != torch.float32:
        return _call(chunk_delta_rule, state, offsets, q=q, k=k, v=v, beta=beta)
    gates = torch.zeros_like(beta) if g is None else g
    kernel = chunk_kda if gates.ndim == 4 else chunk_gated_delta_rule
    return _call(kernel, state, offsets, q=q, k=k, v=v, g=gates, beta=beta)


def _recurrence(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, beta: Tensor, state: Tensor | None, offsets: Tensor | None
) -> tuple[Tensor, Tensor]:
    gate = {} if g is None else {"gk" if g.ndim == 4 else "g": g}
    return _call(fused_recurrent_gated_delta_rule, state, offsets, q=q, k=k, v=v, beta=beta, **gate)


@torch.compiler.disable
def dplr(
    q: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor | None = None,
    *,
    reset: Tensor | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """`chunk` belongs to the chunked back end: the kernel here has its own."""
    short = is_short(q, w, k, v, a, b, state)
    kernel = fused_recurrent_dplr_delta_rule if short else chunk_dplr_delta_rule
    inputs = (*(x.to(v.dtype) for x in (q, k, v, a, b)), log_decays(w))
    o, final = by_documents(partial(_diagonal_plus_low_rank, kernel), inputs, None if state is None else state.float(), reset)
    return o.to(v.dtype), final


def _diagonal_plus_low_rank(
    kernel: Any, q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, w: Tensor, state: Tensor | None, offsets: Tensor | None
) -> tuple[Tensor, Tensor]:
    return _call(kernel, state, offsets, q=q, k=k, v=v, a=a, b=b, gk=w)


def _call(kernel: Any, state: Tensor | None, offsets: Tensor | None, **inputs: Tensor) -> tuple[Tensor, Tensor]:
    return kernel(**inputs, scale=1.0, initial_state=state, output_final_state=True, cu_seqlens=offsets)
