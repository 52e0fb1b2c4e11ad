"""Griffin's recurrent block: a gated branch beside a real-gated linear recurrent unit, RG-LRU (De et al., arXiv:2402.19427).

    y = gelu(W_y x);  u = conv(W_x x)
    i = sigmoid(G_i u + b_i);  r = sigmoid(G_r u + b_r);  log a = -8 r softplus(L)
    h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t u_t)            at the first token of a document h_t = i_t u_t
    out = W_o (y h)

G_i and G_r are block-diagonal, one block a head; every projection has a bias, the convolution no activation. The derivative of
the root is kept below 1000. Parameters for w channels: 3 d w + 2 w^2 / n_heads + (conv + 6) w + d. State: w numbers and the
convolution's last inputs. L starts so that exp(-softplus(L)), a at r = 1/8, has a square uniform in [.9^2, .999^2].
"""

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from blocks import base
from blocks.base import Cost, no_decay
from blocks.context import Context
from blocks.errors import divisors, one_of, require
from blocks.parts import ACTIVATIONS, ShortConv, linear_flops, mask, residual_linear
from kernels.conv import flops as conv_flops
from kernels.dtypes import wide
from kernels.linear_scan import linear_scan

SHARPNESS = 8.0  # of the recurrence gate
STEEPEST = 1000.0  # derivative of the root


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    paper: ClassVar[str] = "Griffin, arXiv:2402.19427"

    width: int | None = None  # w, channels of the recurrence; null: d_model
    n_heads: int = 4  # diagonal blocks of the gates' matrices, a divisor of w
    conv: int = 4  # taps of the short convolution: tokens that it reads, the current one included
    activation: str = "gelu_tanh"  # activation of the gated branch: gelu_tanh (RecurrentGemma's) | gelu (exact) | silu | relu2

    def check(self, d_model: int) -> None:
        w, h = self.channels(d_model), self.n_heads
        require(w >= 1, "width", self.width, "must be at least 1")
        require(h >= 1 and w % h == 0, "n_heads", h, f"must divide the {w} channels", divisors(w))
        require(self.conv >= 2, "conv", self.conv, "must be at least 2 taps")
        one_of("activation", self.activation, tuple(ACTIVATIONS))

    def channels(self, d_model: int) -> int:
        """w, the channels of the recurrence."""
        return d_model if self.width is None else self.width

    def resolved(self, d_model: int) -> "Config":
        return replace(self, width=self.channels(d_model))

    def cost(self, d_model: int, length: int) -> Cost:
        w = self.channels(d_model)
        matrices = 3 * d_model * w + 2 * w * (w // self.n_heads)
        linear = linear_flops(length, 1, matrices)
        return Cost(
            params=matrices + (self.conv + 6) * w + d_model,  # biases of y, x, conv and the gates, L; of out
            flops=linear + conv_flops(length, w, self.conv),
            executed_flops=linear,
            state_bytes=4 * self.conv * w,
        )

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, n_layers)


class State(NamedTuple):
    conv: Tensor  # (b, conv - 1, w) float32: the last inputs of the convolution
    h: Tensor  # (b, w) float32


class Block(nn.Module):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, n_layers: int) -> None:
        super().__init__()
        w, h = config.channels(d_model), config.n_heads
        self.activation = ACTIVATIONS[config.activation]
        self.y_proj = nn.Linear(d_model, w)
        self.x_proj = nn.Linear(d_model, w)
        self.conv = ShortConv(w, config.conv, bias=True, silu=False)
        self.gates = nn.Parameter(torch.randn(h, w // h, 2 * w // h) * (w // h) ** -0.5)  # G_i and G_r, as (in, out)
        self.gates_bias = no_decay(nn.Parameter(torch.zeros(h, 2 * w // h)))
        square = torch.empty(w).uniform_(0.9**2, 0.999**2)
        self.decay = nn.Parameter(torch.expm1(-0.5 * square.log()).log())  # L
        self.out_proj = residual_linear(w, d_model, n_layers, bias=True)
        for linear in (self.y_proj, self.x_proj, self.out_proj):
            nn.init.zeros_(linear.bias)

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        conv, h = (None, None) if state is None else state
        u, conv = self.conv(self.x_proj(x), conv, ctx)
        i, log_a = self.gate(u)
        kept = bounded_root(-torch.expm1(2 * log_a)).masked_fill((ctx.positions == 0)[..., None], 1)
        y, h = linear_scan(mask(log_a, ctx), mask(kept * i * u, ctx), h, reset=ctx.reset)
        return self.out_proj(self.activation(self.y_proj(x)) * y.to(x.dtype)), State(conv, h)

    def gate(self, u: Float[Tensor, "b t w"]) -> tuple[Float[Tensor, "b t w"], Float[Tensor, "b t w"]]:
        """The input gate and the log decay."""
        mixed = torch.einsum("bthi,hio->btho", u.unflatten(-1, (self.gates.shape[0], -1)), self.gates) + self.gates_bias
        i, r = (g.flatten(2) for g in torch.sigmoid(wide(mixed)).chunk(2, -1))
        return i, -SHARPNESS * r * F.softplus(wide(self.decay))


def bounded_root(x: Tensor) -> Tensor:
    """The square root of x >= 0, with a derivative of at most STEEPEST."""
    least = 0.25 * STEEPEST**-2  # where the derivative is that
    bounded = torch.where(x > least, x.clamp(min=least).sqrt(), STEEPEST * x)
    return bounded + (x.detach().sqrt() - bounded.detach())
