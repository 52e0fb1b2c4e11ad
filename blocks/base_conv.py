"""Based's gated short convolution, BaseConv: a few taps and a SiLU, times a linear gate (arXiv:2402.18668, after Zoology's, 2312.04927).

u, g = W_in x + b_in
y = W_out (silu(conv(u)) * g) + b_out        conv: causal, depthwise, without a bias
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
    paper: ClassVar[str] = "Based, arXiv:2402.18668"

    conv: int = 3  # taps of the convolution: tokens that it reads, the current one included
    expand: int = 2  # channels of u and of g, in multiples of d_model
    bias: bool = True  # biases in both projections

    def check(self, d_model: int) -> None:
        require(self.conv >= 1, "conv", self.conv, "must be at least 1 tap")
        require(self.expand >= 1, "expand", self.expand, "must be at least 1")

    def cost(self, d_model: int, length: int) -> Cost:
        width = self.expand * d_model
        linear = linear_flops(length, d_model, 3 * width)
        return Cost(
            params=3 * d_model * width + self.conv * width + self.bias * (2 * width + d_model),
            flops=linear + conv.flops(length, width, self.conv),
            executed_flops=linear,
            state_bytes=4 * (self.conv - 1) * width,
        )

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    conv: Tensor  # (b, taps - 1, expand d) float32: the last inputs of the convolution


class Block(nn.Module):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        width = config.expand * d_model
        self.in_proj = nn.Linear(d_model, 2 * width, bias=config.bias)  # u, g
        self.conv = ShortConv(width, config.conv)
        self.out_proj = residual_linear(width, d_model, n_layers, bias=config.bias)

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        u, g = self.in_proj(x).chunk(2, -1)
        mixed, last = self.conv(u, None if state is None else state.conv, ctx)
        return self.out_proj(mixed * g), State(last)
