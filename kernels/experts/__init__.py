"""A mixture of experts on the experts that a router chose: y = sum over slots s of w_s f_e(x), e = chosen_s.

    y = experts(x, chosen, weights, up, down, up_bias=, down_bias=, activation=, weigh=)         # (b, t, d)

f_e(x) = W_down,e a(W_up,e x + its bias) + its bias. The activations a, which `width` says the rows of W_up for:

    swiglu           silu(g) u,                               [g; u] = the halves of W_up x            arXiv:2002.05202
    clamped_swiglu   g' sigmoid(alpha g') (u' + 1),           g' = min(g, limit), u' = clamp(u, -limit, limit)       gpt-oss
    relu2            relu(W_up x)^2                                                                    arXiv:2109.08668

weigh = "output" is the sum above, "input" is sum of f_e(w_s x) (Llama 4). A slot costs what its expert costs; experts that nobody
chose cost nothing. x (b, t, d); chosen (b, t, k) int64; weights (b, t, k); up (n, width, d); down (n, d, f).
"""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from kernels.backends import Backends, serve
from kernels.experts import chunked, reference
from kernels.experts.activation import ACTIVATIONS, Activation, width
from kernels.opaque import opaque

__all__ = ["ACTIVATIONS", "WEIGH", "Activation", "experts", "flops", "width"]

WEIGH = ("output", "input")
BACKENDS: Backends[..., Tensor] = {"chunked": chunked.experts, "reference": reference.experts}


def _outputs(x: Tensor, *_: Any, **__: Any) -> tuple[Tensor]:
    return (x,)


@opaque(_outputs, traced=0)
def experts(
    x: Float[Tensor, "b t d"],
    chosen: Int[Tensor, "b t k"],
    weights: Float[Tensor, "b t k"],
    up: Float[Tensor, "n u d"],
    down: Float[Tensor, "n d f"],
    *,
    up_bias: Float[Tensor, "n u"] | None = None,
    down_bias: Float[Tensor, "n d"] | None = None,
    activation: Activation,
    weigh: str = "output",
) -> Float[Tensor, "b t d"]:
    """See the module. Returns y in x's dtype; ValueError where up and down don't fit the activation."""
    if up.shape[1] != width(activation.name, down.shape[2]):
        raise ValueError(f"experts: {activation.name} of {down.shape[2]} channels needs {width(activation.name, down.shape[2])} rows of up")
    return serve("experts", BACKENDS, x, chosen, weights, up, down, up_bias, down_bias, activation, weigh)


def flops(length: int, top_k: int, d_model: int, hidden: int, activation: str) -> int:
    """Of `length` tokens that meet top_k experts each (multiply-add = 2)."""
    return 2 * length * top_k * d_model * (width(activation, hidden) + hidden)
