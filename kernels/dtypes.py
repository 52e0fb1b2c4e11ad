"""The dtype rule of the house: states, decays and norms are float32 whatever the model's dtype (float64 stays float64)."""

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """x in float32, or as it is if float64."""
    return x if x.dtype == torch.float64 else x.float()
