"""Short causal depthwise convolution: y_t = bias + sum_j weight_j x_{t-j}, j = 0 .. width-1, inputs before the text are 0.

    y, state = conv(x, weight, bias, state, reset=, pads=)

x, y (b, t, c); weight (c, width), the last column meets the current token (torch's Conv1d order); bias (c) or None;
state (b, width-1, c) float32, the last inputs, None = start of text; reset (b, t) bool, first tokens of new documents;
pads (b,) int64, leading padded tokens of each row. Source: Mamba, arXiv:2312.00752.
"""

from torch import Tensor

from kernels.conv import chunked, reference
from kernels.conv.history import extend, previous
from kernels.rooms import pick

__all__ = ["conv", "extend", "flops", "previous"]

ROOMS = {"chunked": chunked.conv, "reference": reference.conv}


def conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, state: Tensor | None = None, *, reset: Tensor | None = None, pads: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See the module. Returns y (b, t, c) in x's dtype and the state after it."""
    return pick("conv", ROOMS)(x, weight, bias, state, reset=reset, pads=pads)


def flops(length: int, channels: int, width: int) -> int:
    """A multiply-add a tap, channel and token."""
    return 2 * length * channels * width
