"""A single token: the window of its inputs, kept in order, times the taps. In few operations: they are what a step of decoding costs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.conv.history import extend
from kernels.dtypes import wide


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
    """All of length 1."""
    if state is None or reset is not None or pads is not None:
        window, run, after = extend(x, state, weight.shape[1] - 1, reset=reset, pads=pads)  # (b, width, c)
        window = wide(window)
        if run is not None:
            window = window * (run == run[:, -1:])[..., None]
    else:
        window = wide(torch.cat([state if state.dtype == x.dtype else state.to(x.dtype), x], 1))
        after = window[:, 1:].contiguous()  # a state must not keep what lies before it in memory
    y = (window * weight.t()).sum(1, keepdim=True)
    y = y if bias is None else y + bias
    y = F.silu(y) if activation == "silu" else y
    return y.to(x.dtype), after
