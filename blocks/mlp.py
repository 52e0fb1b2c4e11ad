"""MLP: the plain channel mixer, two projections and an activation between them.

    y = W_down f(W_up x)

f is the GELU (arXiv:1606.08415), exact or in its tanh form (GPT-2), the squared ReLU (Primer, arXiv:2109.08668) or the SiLU.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from blocks import base
from blocks.base import Cost
from blocks.context import Context
from blocks.errors import one_of, require
from blocks.parts import ACTIVATIONS, linear_flops, residual_linear


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    kind: ClassVar[str] = "channel"
    paper: ClassVar[str] = "Transformer, arXiv:1706.03762"

    activation: str = "gelu"  # activation: gelu (exact) | gelu_tanh (GPT-2's) | relu2 (squared ReLU) | silu
    expand: float = 4.0  # hidden channels, in multiples of d_model
    hidden: int | None = None  # hidden channels themselves; null: expand d_model
    bias: bool = False  # biases in both projections

    def check(self, d_model: int) -> None:
        one_of("activation", self.activation, tuple(ACTIVATIONS))
        require(self.hidden is None or self.hidden >= 1, "hidden", self.hidden, "must be at least 1")
        require(self.width(d_model) >= 1, "expand", self.expand, f"must give a hidden width of at least 1 at d_model {d_model}")

    def width(self, d_model: int) -> int:
        """The hidden width."""
        return round(self.expand * d_model) if self.hidden is None else self.hidden

    def resolved(self, d_model: int) -> "Config":
        return replace(self, hidden=self.width(d_model), expand=Config.expand)

    def cost(self, d_model: int, length: int) -> Cost:
        f = self.width(d_model)
        flops = linear_flops(length, d_model, 2 * f)
        return Cost(params=2 * d_model * f + self.bias * (f + d_model), flops=flops, executed_flops=flops)

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    """A channel mixer remembers nothing."""


class Block(nn.Module):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.up = nn.Linear(d_model, config.width(d_model), bias=config.bias)
        self.down = residual_linear(config.width(d_model), d_model, n_layers, bias=config.bias)

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        return self.down(self.activation(self.up(x))), State()
