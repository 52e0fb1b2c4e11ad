"""(I + A)^-1 X for batches of small strictly lower triangular A: the heart of the WY form.

Forward substitution inside 16-row blocks, all blocks of all systems at once, then blocks joined in pairs by matmuls:
the lower left of a joined inverse is -R22 A21 R11. Unlike products (I - A)(I + A^2)(I + A^4)..., whose powers overflow when
the keys of a chunk resemble each other, every intermediate is part of the inverse itself, so it is as accurate as substitution.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 16


def inverse(a: Tensor) -> Tensor:
    """(I + A)^-1 of a (n, c, c), strictly lower triangular, c a power of two."""
    n, c, _ = a.shape
    size = min(BLOCK, c)
    r = _substitute(_diagonal_blocks(a, size))
    while size < c:
        left, right = r.unflatten(1, (-1, 2)).unbind(2)
        corner = _diagonal_blocks(a, 2 * size)[:, :, size:, :size]
        joined = r.new_zeros(n, c // (2 * size), 2 * size, 2 * size)
        joined[:, :, :size, :size] = left
        joined[:, :, size:, size:] = right
        joined[:, :, size:, :size] = -(right @ (corner @ left))
        r, size = joined, 2 * size
    return r[:, 0]


def _diagonal_blocks(a: Tensor, size: int) -> Tensor:
    """(n, c, c) -> (n, c / size, size, size)."""
    n, c, _ = a.shape
    return a.reshape(n, c // size, size, c // size, size).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)


def _substitute(a: Tensor) -> Tensor:
    """The inverses of I + a for blocks a (n, m, size, size), row by row with the batch innermost."""
    n, m, size, _ = a.shape
    a = a.permute(2, 3, 0, 1).reshape(size, size, n * m).contiguous()
    r = torch.zeros_like(a)
    r.diagonal(dim1=0, dim2=1).fill_(1)
    for i in range(1, size):
        r[i, :i] = -(a[i, :i, None] * r[:i, :i]).sum(0)
    return r.permute(2, 0, 1).contiguous().view(n, m, size, size)


def inverse_flops(c: int) -> int:
    """FLOPs of the matmuls that join the blocks of one system."""
    total, size = 0, min(BLOCK, c)
    while size < c:
        total += (c // (2 * size)) * 2 * (2 * size**3)
        size *= 2
    return total


class _Solve(torch.autograd.Function):
    """Y = (I + A)^-1 X. Its backward needs no second solve: dX = R^T dY, dA = -dX Y^T."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor) -> Tensor:
        r = inverse(a)
        y = r @ x
        ctx.save_for_backward(r, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        r, y = ctx.saved_tensors
        dx = r.mT @ dy
        return -(dx @ y.mT).tril(-1), dx


def solve(a: Tensor, x: Tensor) -> Tensor:
    """(I + A)^-1 X, a (n, c, c) strictly lower triangular, x (n, c, m). Differentiable once."""
    return _Solve.apply(a, x)
