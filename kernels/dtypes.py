"""The dtype rule of the house: states, decays and norms are float32 whatever the model's dtype (float64 stays float64)."""

import math

import torch
from torch import Tensor

LOG2E = math.log2(math.e)  # exp(x) = exp2(x LOG2E): on a CPU exp crawls where its result is denormal, exp2 does not


def wide(x: Tensor) -> Tensor:
    """x in float32, or as it is if float64."""
    return x if x.dtype == torch.float64 else x.float()
