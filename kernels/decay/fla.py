"""Chunk kernels of flash-linear-attention 0.6: simple GLA for a scalar gate or none, GLA for a vector, RWKV-6 where there is a bonus.

Up to SHORT tokens whose gradient nobody asks for (decoding) go through the library's recurrences, which read the state once. The
kernels multiply in v's dtype; decays, sums and states are float32.
"""

import sys
from functools import partial
from typing import Any

import torch
from fla.ops.gla import chunk_gla, fused_recurrent_gla
from fla.ops.rwkv6 import chunk_rwkv6, fused_recurrent_rwkv6
from fla.ops.simple_gla import chunk_simple_gla, fused_recurrent_simple_gla
from torch import Tensor

from kernels.decay.queries import repeated
from kernels.flash_linear_attention import WIDEST, by_documents, is_short, log_decays, loses_gates, refuses

CHUNKS = {"scalar": chunk_simple_gla, "vector": chunk_gla, "bonus": chunk_rwkv6}
RECURRENCES = {"scalar": fused_recurrent_simple_gla, "vector": fused_recurrent_gla, "bonus": fused_recurrent_rwkv6}


def refuses_decay(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    state: Tensor | None = None,
    *,
    bonus: Tensor | None = None,
    reset: Tensor | None = None,
    chunk: int | None = None,
) -> str | None:
    tiled = bonus is None and (g is None or g.ndim == 3)
    why = refuses((q, k, v), (g, state, bonus), sys.maxsize if tiled else WIDEST)
    return why or loses_gates(g if tiled else None, q, k, v, state)


@torch.compiler.disable
@repeated
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
    """`chunk` belongs to the chunked back end: each kernel here has its own."""
    kernels = RECURRENCES if is_short(q, k, v, g, state, bonus) else CHUNKS
    start, gates = None if state is None else state.float(), log_decays(g)
    q, k = (x.to(v.dtype).repeat_interleave(v.shape[2] // q.shape[2], 2) for x in (q, k))
    if bonus is not None:
        kernel = partial(kernels["bonus"], u=bonus.float())
        gates = k.new_zeros(1, dtype=torch.float32) if gates is None else gates.reshape(*gates.shape[:3], -1)
        gates = gates.expand_as(k)
    else:
        kernel = kernels["vector" if gates is not None and gates.ndim == 4 else "scalar"]
    o, final = by_documents(partial(_call, kernel), (q, k, v, gates), start, reset)
    return o.to(v.dtype), final


def _call(
    kernel: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor | None, offsets: Tensor | None
) -> tuple[Tensor, Tensor]:
    return kernel(q, k, v, g, scale=1.0, initial_state=state, output_final_state=True, cu_seqlens=offsets)
