"""What several blocks share: norms, projections, short convolution, token shift, and the arithmetic of their cost."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.base import no_decay
from blocks.context import Context
from blocks.errors import divisors, require
from kernels.conv import conv, previous
from kernels.dtypes import wide
from kernels.norm import rms_norm


class RMSNorm(nn.Module):
    """y = x / rms(x) * weight over the last dimension, at least in float32 (Zhang & Sennrich, arXiv:1910.07467).

    groups > 1 norms each of `groups` equal slices on its own; affine=False has no weight.
    """

    def __init__(self, width: int, *, eps: float = 1e-6, groups: int = 1, affine: bool = True) -> None:
        super().__init__()
        self.eps, self.groups = eps, groups
        self.weight = nn.Parameter(torch.ones(width)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, groups=self.groups, eps=self.eps)


class CentredRMSNorm(nn.Module):
    """y = x / rms(x) * (1 + weight): the weight begins at 0 and decays towards it (Gemma, Qwen3-Next)."""

    def __init__(self, width: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, 1 + wide(self.weight), eps=self.eps)


NORMS = ("rmsnorm", "rmsnorm_centred", "rmsnorm_plain", "layernorm", "layernorm_unbiased")


def make_norm(name: str, width: int, eps: float) -> nn.Module:
    """The norm of a name in NORMS: rmsnorm (weight), rmsnorm_centred (1 + weight), rmsnorm_plain (no weight), layernorm (weight and
    bias), layernorm_unbiased (weight)."""
    if name == "rmsnorm_centred":
        return CentredRMSNorm(width, eps=eps)
    if name.startswith("layernorm"):
        return nn.LayerNorm(width, eps=eps, bias=name == "layernorm")
    return RMSNorm(width, eps=eps, affine=name == "rmsnorm")


def norm_params(name: str, width: int) -> int:
    """The parameters of `make_norm`."""
    return {"rmsnorm_plain": 0, "layernorm": 2 * width}.get(name, width)


def relu2(x: Tensor) -> Tensor:
    """The square of the ReLU (Primer, arXiv:2109.08668)."""
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu2": relu2,
    "silu": F.silu,
}


def residual_linear(d_in: int, d_out: int, n_layers: int, *, bias: bool = False) -> nn.Linear:
    """A projection back into the residual stream: torch's default init divided by sqrt(n_layers) (GPT-2, Mamba)."""
    linear = nn.Linear(d_in, d_out, bias=bias)
    with torch.no_grad():
        linear.weight /= math.sqrt(n_layers)
    return linear


def check_heads(n_heads: int, n_kv_heads: int, head_dim: int | None, width: int, *, name: str = "d_model") -> None:
    """Raise ConfigError unless there can be n_heads heads of head_dim channels (None: of equal parts of `width`, called `name` in the
    message), and they share n_kv_heads heads of keys and values evenly."""
    require(n_heads >= 1, "n_heads", n_heads, "must be at least 1")
    whole = head_dim is not None or width % n_heads == 0
    require(whole, "n_heads", n_heads, f"must divide {name} = {width}", f"or set head_dim; {divisors(width)}")
    require(head_dim is None or head_dim >= 1, "head_dim", head_dim, "must be at least 1")
    fits = n_kv_heads >= 1 and n_heads % n_kv_heads == 0
    require(fits, "n_kv_heads", n_kv_heads, f"must divide n_heads = {n_heads}", divisors(n_heads))


def hidden_width(d_model: int, expand: float, multiple_of: int) -> int:
    """expand d_model, rounded up to a multiple of multiple_of."""
    return max(1, -(-round(expand * d_model) // multiple_of)) * multiple_of


def linear_flops(length: int, d_in: int, d_out: int) -> int:
    """FLOPs of a projection of `length` tokens (multiply-add = 2)."""
    return 2 * length * d_in * d_out


def step_bias(size: int, low: float, high: float, floor: float) -> Tensor:
    """(size,) b with softplus(b) = dt, the step sizes dt log-uniform in [low, high] and not below `floor` (Mamba's init)."""
    dt = torch.empty(size).uniform_(math.log(low), math.log(high)).exp().clamp(min=floor)
    return dt + torch.log(-torch.expm1(-dt))  # the inverse of softplus, without losing small dt


class ShortConv(nn.Module):
    """Causal depthwise convolution of `width` taps and an optional SiLU. State: the last width-1 inputs (b, width-1, c) float32."""

    def __init__(self, channels: int, width: int = 4, *, bias: bool = False, silu: bool = True) -> None:
        super().__init__()
        self.activation = "silu" if silu else "none"
        bound = 1 / math.sqrt(width)  # nn.Conv1d's init for a depthwise filter
        self.weight = no_decay(nn.Parameter(torch.empty(channels, width).uniform_(-bound, bound)))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor]:
        return conv(x, self.weight, self.bias, state, activation=self.activation, reset=ctx.reset, pads=ctx.pads)


def shift(x: Tensor, state: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor]:
    """Token shift: the input before each token, 0 at the start of a document. State: the last input (b, 1, d) float32."""
    return previous(x, state, reset=ctx.reset, pads=ctx.pads)


def mask(x: Tensor, ctx: Context) -> Tensor:
    """x (b, t, ...) with padded tokens set to 0: a key, a gate or a write strength of 0 leaves a state as it was."""
    if ctx.padding is None:
        return x
    return x.masked_fill(ctx.padding.reshape(*ctx.padding.shape, *[1] * (x.ndim - 2)), 0)
