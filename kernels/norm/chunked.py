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
    rows = wide(x).reshape(-1, x.shape[-1] // groups)
    inside = weight if groups == 1 else None  # the layer norm's backward knows one weight for all rows
    y = _RMSNorm.apply(rows, None if inside is None else inside.to(rows.dtype), eps).view(x.shape)
    return (y if inside is weight else y * weight).to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    """(x, weight, eps) -> y. x, y (rows, d), weight (d,) or None, all of one dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
        r = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, r)
        y = x * r
        return y if weight is None else y.mul_(weight)

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
                dx.addcmul_(taken, r, value=1 / x.shape[-1])
        return dx, dweight, None
