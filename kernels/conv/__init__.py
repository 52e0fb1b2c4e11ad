"""Short causal depthwise convolution: y_t = f(bias + sum_j weight_j x_{t-j}), j = 0 .. width-1, inputs before the text are 0.

    y, state = conv(x, weight, bias, state, activation=, reset=, pads=)

x, y (b, t, c); weight (c, width), the last column meets the current token (torch's Conv1d order); bias (c) or None;
state (b, width-1, c) float32, the last inputs, None = start of text; reset (b, t) bool, first tokens of new documents;
pads (b,) int64, leading padded tokens of each row; activation f:
"none" or "silu". Source: Mamba, arXiv:2312.00752.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from kernels.backends import Backends, LibraryBackend, serve, with_step
from kernels.conv import chunked, reference, step
from kernels.conv.history import extend, previous

__all__ = ["conv", "extend", "flops", "previous"]

ACTIVATIONS = ("none", "silu")
BACKENDS: Backends[..., tuple[Tensor, Tensor]] = {
    "causal_conv1d": LibraryBackend("kernels.conv.causal_conv1d", "conv"),
    "chunked": chunked.conv,
    "reference": reference.conv,
}
STEP = with_step(BACKENDS, step.conv)


def conv(
    x: Float[Tensor, "b t c"],
    weight: Float[Tensor, "c width"],
    bias: Float[Tensor, "c"] | None = None,
    state: Float[Tensor, "b past c"] | None = None,
    *,
    activation: str = "none",
    reset: Bool[Tensor, "b t"] | None = None,
    pads: Int[Tensor, "b"] | None = None,
) -> tuple[Float[Tensor, "b t c"], Float[Tensor, "b past c"]]:
    """See the module. Returns y in x's dtype and the state after it. Raises ValueError if the activation is none of ours."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"conv: activation {activation!r} is not one of {', '.join(ACTIVATIONS)}")
    backends = STEP if x.shape[1] == 1 else BACKENDS
    return serve("conv", backends, x, weight, bias, state, activation=activation, reset=reset, pads=pads)


def flops(length: int, channels: int, width: int) -> int:
    """A multiply-add a tap, channel and token."""
    return 2 * length * channels * width
