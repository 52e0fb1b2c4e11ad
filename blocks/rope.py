"""Rotary position embedding (RoFormer, arXiv:2104.09864), half-split pairs (c, c + rotary/2) as in Llama."""

from dataclasses import dataclass

import torch
from torch import Tensor

from blocks.base import require
from kernels.dtypes import wide


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary position embedding of the first `partial` share of each head's dimensions."""

    base: float = 10000.0  # theta
    partial: float = 1.0  # share of the head's dimensions that rotate

    def rotary(self, head_dim: int) -> int:
        """The number of dimensions that rotate, even."""
        return int(head_dim * self.partial) // 2 * 2

    def check(self, head_dim: int) -> None:
        require(self.base > 1, "rope.base", self.base, "must be above 1")
        require(0 < self.partial <= 1, "rope.partial", self.partial, "must be in (0, 1]")
        require(self.rotary(head_dim) >= 2, "rope.partial", self.partial, f"leaves no pair to rotate in heads of {head_dim}")


def rotate(x: Tensor, positions: Tensor, rope: Rope) -> Tensor:
    """x (b, t, h, e) turned by its positions (b, t), angles in float32."""
    n = rope.rotary(x.shape[-1])
    inverse = rope.base ** (-torch.arange(0, n, 2, device=x.device, dtype=torch.float32) / n)
    angle = positions[..., None].float() * inverse  # (b, t, n/2)
    cos, sin = angle.cos()[:, :, None], angle.sin()[:, :, None]
    a, b = wide(x[..., : n // 2]), wide(x[..., n // 2 : n])
    turned = torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)
    return turned if n == x.shape[-1] else torch.cat([turned, x[..., n:]], -1)
