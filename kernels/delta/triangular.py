"""(I - A)^-1 for batches of small strictly lower triangular A: the heart of the WY form.

Substitution in blocks of 32 tokens, then blocks joined in pairs by matmuls: the lower left of a joined inverse is R22 A21 R11.
Unlike products (I + A)(I + A^2)(I + A^4)..., whose powers overflow when the keys of a chunk resemble each other, every
intermediate is part of the inverse itself, so it is as accurate as substitution.
"""

import torch
from torch import Tensor

BLOCK = 32


def inverse(a: Tensor) -> Tensor:
    """(I - A)^-1 of a (n, c, c), c a power of two. Only what is below a's diagonal is read."""
    n, c, _ = a.shape
    size = min(BLOCK, c)
    blocks = _diagonal_blocks(a, size).neg()  # (n, c / size, size, size)
    one = torch.eye(size, dtype=a.dtype, device=a.device).expand_as(blocks)
    r = torch.linalg.solve_triangular(blocks, one, upper=False, unitriangular=True)
    while size < c:
        left, right = r.unflatten(1, (-1, 2)).unbind(2)
        corner = _diagonal_blocks(a, 2 * size)[:, :, size:, :size]
        joined = r.new_zeros(n, c // (2 * size), 2 * size, 2 * size)
        joined[:, :, :size, :size] = left
        joined[:, :, size:, size:] = right
        joined[:, :, size:, :size] = right @ (corner @ left)
        r, size = joined, 2 * size
    return r[:, 0]


def inverse_flops(c: int) -> int:
    """FLOPs of the matmuls that join the blocks of one system."""
    total, size = 0, min(BLOCK, c)
    while size < c:
        total += (c // (2 * size)) * 2 * (2 * size**3)
        size *= 2
    return total


def _diagonal_blocks(a: Tensor, size: int) -> Tensor:
    """(n, c, c) -> a view (n, c / size, size, size)."""
    return a.unflatten(2, (-1, size)).unflatten(1, (-1, size)).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
