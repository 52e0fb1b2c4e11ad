"""The matmul form: slots sorted by expert, one matmul an expert that was chosen, the outputs back in their order and summed.

Nothing is dropped and nothing is padded. Sums run over a token's slots in their order, so a token's result depends on no other token.
"""

from typing import Any

import torch
import torch.nn.functional as F
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
    k, slots = chosen.shape[-1], chosen.flatten()
    order = slots.argsort(stable=True)
    inverse = order.argsort()
    counts = slots.bincount(minlength=up.shape[0]).tolist()
    own = x[..., None, :] * weights[..., None].to(x.dtype) if weigh == "input" else x[..., None, :].expand(*x.shape[:-1], k, -1)
    pieces = _Moved.apply(own.flatten(0, 2), order, inverse).split(counts)
    matrices = [_unbound(w, len(pieces)) for w in (up, up_bias, down, down_bias)]
    outputs = []
    for piece, first, first_bias, second, second_bias in zip(pieces, *matrices, strict=True):
        if len(piece):
            outputs.append(F.linear(activation(F.linear(piece, first, first_bias)), second, second_bias))
    y = _Moved.apply(torch.cat(outputs), inverse, order).view(*x.shape[:-1], k, -1)
    return (y * weights[..., None].to(x.dtype) if weigh == "output" else y).sum(-2).to(x.dtype)


def _unbound(x: Tensor | None, n: int) -> tuple[Tensor | None, ...]:
    """One an expert, at once: taken one by one, each would have a gradient of the size of all."""
    return (None,) * n if x is None else x.unbind(0)


class _Moved(torch.autograd.Function):
    """x[order] for a permutation, whose gradient is moved back by a gather too, not scattered and added."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return x[order]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        order, inverse = ctx.saved_tensors
        return _Moved.apply(grad, inverse, order), None, None
