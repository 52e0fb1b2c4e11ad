"""In few passes, forward and backward.

The backward pass is that of a layer norm whose mean is 0, one kernel in torch, less what it takes off for the mean:

    dx = r (g w - xhat mean(xhat g w))          xhat = r x, r = 1 / rms
    layer norm: r (g w - mean(g w) - xhat mean(xhat g w))
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.dtypes import wide


def rms_norm(x: Tensor, weight: Tensor | None, *, groups: int, eps: float) -> Tensor:
    parts = wide(x) if groups == 1 else wide(x).unflatten(-1, (groups, -1))
    inside = None if weight is None or groups > 1 else weight.to(parts.dtype)  # the backward pass knows one weight for all rows
    if torch.is_grad_enabled() and (x.requires_grad or (inside is not None and inside.requires_grad)):
        y = _RMSNorm.apply(parts.reshape(-1, parts.shape[-1]), inside, eps).view(x.shape)
    else:
        y = _normed(parts, inside, eps)[0].view(x.shape)  # what a Function costs is a third of a decoding step's norm
    return (y if groups == 1 or weight is None else y * weight).to(x.dtype)


def _normed(x: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """y and r = 1 / rms. x, y (.., d), r (.., 1), weight (d,) or None, all of one dtype."""
    r = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    y = x * r
    return (y if weight is None else y.mul_(weight)), r


class _RMSNorm(torch.autograd.Function):
    """(x, weight, eps) -> y. x, y (rows, d), weight (d,) or None, all of one dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
        y, r = _normed(x, weight, eps)
        ctx.save_for_backward(x, weight, r)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, r = ctx.saved_tensors
        needs, shape = ctx.needs_input_grad, [x.shape[-1]]
        wanted = [needs[0], weight is not None and needs[1], False]
        with torch.autocast(g.device.type, enabled=False):
            dx, dweight, _ = torch.ops.aten.native_layer_norm_backward(g, x, shape, torch.zeros_like(r), r, weight, None, wanted)
            if needs[0]:
                taken = g.sum(-1, keepdim=True) if weight is None else (g @ weight)[:, None]
                dx.add_(taken.mul_(r).div_(x.shape[-1]))  # addcmul_ of two columns is four times slower
        return dx, dweight, None
