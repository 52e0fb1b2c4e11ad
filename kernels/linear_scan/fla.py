"""The recurrence of HGRN (arXiv:2311.04823) in flash-linear-attention 0.6: one program walks through a tile of channels.

The library's chunk kernel for it drops the gradients of the initial and of the final state; this one has them. Everything is
float32.
"""

import torch
from fla.ops.hgrn import fused_recurrent_hgrn
from torch import Tensor

from kernels.flash_linear_attention import by_documents
from kernels.gpu import lacks_gpu, unknown_dtype


def refuses_linear_scan(
    a: Tensor, x: Tensor, state: Tensor | None = None, *, reset: Tensor | None = None, chunk: int | None = None
) -> str | None:
    return lacks_gpu(x) or unknown_dtype("flash-linear-attention", a, x, *(() if state is None else (state,)))


@torch.compiler.disable
def linear_scan(
    a: Tensor, x: Tensor, state: Tensor | None = None, *, reset: Tensor | None = None, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """`chunk` belongs to the chunked back end."""
    return by_documents(_walk, (x.float(), a.float()), None if state is None else state.float(), reset)


def _walk(x: Tensor, a: Tensor, state: Tensor | None, offsets: Tensor | None) -> tuple[Tensor, Tensor]:
    return fused_recurrent_hgrn(x, a, initial_state=state, output_final_state=True, cu_seqlens=offsets)
