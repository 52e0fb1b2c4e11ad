"""SwiGLU: a gated channel mixer, and its siblings with another gate (Shazeer, arXiv:2002.05202).

    y = W_down (f(gate_scale W_gate x) * W_up x)

f is the SiLU (SwiGLU), the GELU, exact or in its tanh form (GEGLU; Gemma), or the squared ReLU.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from blocks import base
from blocks.base import Cost
from blocks.context import Context
from blocks.errors import one_of, require
from blocks.parts import ACTIVATIONS, hidden_width, linear_flops, residual_linear


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    kind: ClassVar[str] = "channel"
    paper: ClassVar[str] = "GLU variants, arXiv:2002.05202"

    expand: float = 8 / 3  # hidden channels, in multiples of d_model; 8/3 has the parameters of a plain MLP of 4
    multiple_of: int = 16  # the hidden channels of expand are rounded up to a multiple of this
    hidden: int | None = None  # hidden channels themselves; null: from expand and multiple_of
    bias: bool = False  # biases in all three projections
    activation: str = "silu"  # activation of the gate: silu | gelu (exact) | gelu_tanh | relu2 (squared ReLU)
    gate_scale: float = 1.0  # factor of the gate before its activation (Falcon-H1, arXiv:2507.22448)

    def check(self, d_model: int) -> None:
        one_of("activation", self.activation, tuple(ACTIVATIONS))
        require(self.multiple_of >= 1, "multiple_of", self.multiple_of, "must be at least 1")
        require(self.hidden is None or self.hidden >= 1, "hidden", self.hidden, "must be at least 1")
        require(self.hidden is not None or self.expand > 0, "expand", self.expand, "must be above 0")

    def width(self, d_model: int) -> int:
        """The hidden width."""
        if self.hidden is not None:
            return self.hidden
        return hidden_width(d_model, self.expand, self.multiple_of)

    def resolved(self, d_model: int) -> "Config":
        return replace(self, hidden=self.width(d_model), expand=Config.expand, multiple_of=Config.multiple_of)

    def cost(self, d_model: int, length: int) -> Cost:
        f = self.width(d_model)
        flops = linear_flops(length, d_model, 3 * f)
        return Cost(params=3 * d_model * f + self.bias * (2 * f + d_model), flops=flops, executed_flops=flops)

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    """A channel mixer remembers nothing."""


class Block(nn.Module):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        f = config.width(d_model)
        self.activation, self.gate_scale = ACTIVATIONS[config.activation], config.gate_scale
        self.gate = nn.Linear(d_model, f, bias=config.bias)
        self.up = nn.Linear(d_model, f, bias=config.bias)
        self.down = residual_linear(f, d_model, n_layers, bias=config.bias)

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        gate = self.gate(x) if self.gate_scale == 1 else self.gate(x) * self.gate_scale
        return self.down(self.activation(gate) * self.up(x)), State()
