"""The library causal-conv1d (CUDA): one kernel for the filter, the bias and SiLU.

It reads a piece behind start inputs, or knows documents, never both: with both, the inputs before the piece go in as tokens and
their outputs are dropped. The state after a piece is cut from the piece here, as in the chunked back end. The library's step for one
token would save nothing: it writes over its state, which here is a value.
"""

import torch
from causal_conv1d import causal_conv1d_fn
from torch import Tensor

from kernels.conv.history import behind
from kernels.gpu import lacks_gpu, unknown_dtype

WIDTHS = (2, 3, 4)
LANES = 8  # numbers that the kernel loads at once: the channels, and where a row starts, are multiples of it


def refuses_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    state: Tensor | None = None,
    *,
    activation: str = "none",
    reset: Tensor | None = None,
    pads: Tensor | None = None,
) -> str | None:
    del bias, state, activation, reset, pads  # all of them served
    channels, width = weight.shape
    if width not in WIDTHS:
        return f"width {width} is not one of causal-conv1d's {', '.join(map(str, WIDTHS))}"
    if channels % LANES:
        return f"{channels} channels are not a multiple of {LANES}"
    return lacks_gpu(x) or unknown_dtype("causal-conv1d", x, weight)


@torch.compiler.disable
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    state: Tensor | None = None,
    *,
    activation: str = "none",
    reset: Tensor | None = None,
    pads: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    width = weight.shape[1]
    past, x, run, after = behind(x, state, width - 1, reset=reset, pads=pads)
    dropped = 0
    if run is not None:
        if past is None:
            run = run[:, width - 1 :]
        else:
            x, past, dropped = torch.cat([past, x], 1), None, width - 1
        run = run.to(torch.int32).contiguous()
    y = causal_conv1d_fn(
        _aligned(x).transpose(1, 2),
        weight,
        None if bias is None else bias.to(weight.dtype),
        seq_idx=run,
        initial_states=None if past is None else past.contiguous().transpose(1, 2),
        activation=None if activation == "none" else activation,
    ).transpose(1, 2)
    if y.requires_grad:
        y.register_hook(_aligned)
    return y[:, dropped:], after


def _aligned(x: Tensor) -> Tensor:
    """x (b, t, c), copied if its rows don't start where the kernel may load."""
    fits = x.stride(2) == 1 and not any(i % LANES for i in (*x.stride()[:2], x.storage_offset()))
    return x if fits and x.stride(1) > 1 else x.contiguous()
