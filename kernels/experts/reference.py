"""The definition: one token and one of its experts at a time."""

import torch
from torch import Tensor

from kernels.experts.activation import Activation


def experts(
    x: Tensor,
    chosen: Tensor,
    weights: Tensor,
    up: Tensor,
    down: Tensor,
    up_bias: Tensor | None,
    down_bias: Tensor | None,
    activation: Activation,
    weigh: str,
) -> Tensor:
    tokens = []
    for token, slots, shares in zip(x.flatten(0, 1), chosen.flatten(0, 1).tolist(), weights.flatten(0, 1), strict=True):
        y = torch.zeros_like(token)[None]
        for e, share in zip(slots, shares, strict=True):
            hidden = (token[None] if weigh == "output" else share * token[None]) @ up[e].T
            hidden = activation(hidden if up_bias is None else hidden + up_bias[e])
            out = hidden @ down[e].T
            out = out if down_bias is None else out + down_bias[e]
            y = y + (share * out if weigh == "output" else out)
        tokens.append(y)
    return torch.cat(tokens).view_as(x).to(x.dtype)
