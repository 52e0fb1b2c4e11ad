"""The definition: one token at a time, one matrix product a token."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.conv.history import extend


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
    full, run, after = extend(x, state, width - 1, reset=reset, pads=pads)
    out = []
    for i in range(x.shape[1]):
        window = full[:, i : i + width]
        if run is not None:
            window = window * (run[:, i : i + width] == run[:, i + width - 1 : i + width])[..., None]
        out.append((window.transpose(1, 2)[:, :, None] @ weight[:, :, None].to(x.dtype))[..., 0, 0])
    y = torch.stack(out, 1)
    y = y if bias is None else y + bias.to(y.dtype)
    return (F.silu(y) if activation == "silu" else y), after
