"""Root-mean-square norm over the last dimension, each of `groups` equal slices on its own (Zhang & Sennrich, arXiv:1910.07467).

    y = x / sqrt(mean(x^2) + eps) * weight

    y = rms_norm(x, weight, groups=, eps=)

x, y (..., d); weight (d,) or None. Computed in float32 at least, also under autocast; y is in x's dtype. torch.compile always gets
the definition, whose steps it fuses by itself.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from kernels.backends import serve
from kernels.norm import chunked, reference

__all__ = ["rms_norm"]

BACKENDS = {"chunked": chunked.rms_norm, "reference": reference.rms_norm}


def rms_norm(
    x: Float[Tensor, "*batch d"], weight: Float[Tensor, "d"] | None = None, *, groups: int = 1, eps: float
) -> Float[Tensor, "*batch d"]:
    """See the module. Raises ValueError if the groups don't divide d."""
    if groups < 1 or x.shape[-1] % groups:
        raise ValueError(f"rms_norm: {groups} groups don't divide a width of {x.shape[-1]}")
    if torch.compiler.is_compiling():
        return reference.rms_norm(x, weight, groups=groups, eps=eps)
    return serve("norm", BACKENDS, x, weight, groups=groups, eps=eps)
