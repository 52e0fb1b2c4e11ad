"""What an expert does between its two projections. See the package."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS = ("swiglu", "clamped_swiglu", "relu2")


class Activation(NamedTuple):
    """Its name; alpha and limit are of clamped_swiglu."""

    name: str = "swiglu"
    alpha: float = 1.702
    limit: float = 7.0

    def __call__(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., f)"""
        if self.name == "relu2":
            return F.relu(x).square()
        gate, up = x.chunk(2, -1)
        if self.name == "swiglu":
            return F.silu(gate) * up
        gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        return gate * torch.sigmoid(self.alpha * gate) * (up + 1)


def width(name: str, hidden: int) -> int:
    """The channels that the first projection gives for `hidden` that the second one reads."""
    return hidden if name == "relu2" else 2 * hidden
