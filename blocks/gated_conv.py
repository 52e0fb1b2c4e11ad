"""LFM2's gated short convolution: a few taps between two gates (arXiv:2511.23404).

B, C, u = W_in x
y = W_out (C * conv(B * u))        conv: causal, depthwise, no activation
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from blocks import base
from blocks.base import Cost
from blocks.context import Context
from blocks.errors import require
from blocks.parts import ShortConv, linear_flops, residual_linear
from kernels import conv


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    paper: ClassVar[str] = "LFM2, arXiv:2511.23404"

    conv: int = 3  # taps of the convolution: tokens that it reads, the current one included
    bias: bool = False  # biases in both projections and in the convolution

    def check(self, d_model: int) -> None:
        require(self.conv >= 1, "conv", self.conv, "must be at least 1 tap")

    def cost(self, d_model: int, length: int) -> Cost:
        linear = linear_flops(length, d_model, 4 * d_model)
        return Cost(
            params=d_model * (4 * d_model + self.conv + 5 * self.bias),
            flops=linear + conv.flops(length, d_model, self.conv),
            executed_flops=linear,
            state_bytes=4 * (self.conv - 1) * d_model,
        )

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    conv: Tensor  # (b, taps - 1, d) float32: the last inputs of the convolution


class Block(nn.Module):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(d_model, 3 * d_model, bias=config.bias)  # B, C, u
        self.conv = ShortConv(d_model, config.conv, bias=config.bias, silu=False)
        self.out_proj = residual_linear(d_model, d_model, n_layers, bias=config.bias)

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        b, c, u = self.in_proj(x).chunk(3, -1)
        mixed, last = self.conv(b * u, None if state is None else state.conv, ctx)
        return self.out_proj(c * mixed), State(last)
