"""RWKV's channel mixer: a squared-ReLU MLP that also sees the token before (arXiv:2404.05892, version 7: arXiv:2503.14456).

mix(m) = x_t + (x_{t-1} - x_t) m
version 6:  y = sigmoid(W_r mix(m_r)) * W_v relu(W_k mix(m_k))^2
version 7:  y = W_v relu(W_k mix(m_k))^2
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from blocks import base
from blocks.base import Context, Cost, require
from blocks.parts import linear_flops, shift


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    kind: ClassVar[str] = "channel"
    paper: ClassVar[str] = "RWKV-5/6 (Eagle and Finch), arXiv:2404.05892"

    version: int = 6  # 6 (with a receptance gate) or 7 (without)
    hidden: int | None = None  # None = 3.5 d_model rounded down to a multiple of 32 (version 6), 4 d_model (version 7)

    def check(self, d_model: int) -> None:
        require(self.version in (6, 7), "version", self.version, "is not one of the choices", "choices: 6, 7")
        require(self.width(d_model) >= 1, "hidden", self.hidden, f"must be at least 1 (it is {self.width(d_model)} at d_model {d_model})")

    def width(self, d_model: int) -> int:
        """The hidden width."""
        if self.hidden is not None:
            return self.hidden
        return 7 * d_model // 64 * 32 if self.version == 6 else 4 * d_model

    def cost(self, d_model: int, length: int) -> Cost:
        gates = 1 if self.version == 6 else 0
        matrices = 2 * d_model * self.width(d_model) + gates * d_model * d_model
        flops = linear_flops(length, 1, matrices)
        return Cost(params=matrices + (1 + gates) * d_model, flops=flops, executed_flops=flops, state_bytes=4 * d_model)

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    shift: Tensor  # (b, 1, d) float32: the last input


class Block(nn.Module):
    """See the file's docstring. Version 6 starts with y = 0 through W_v and W_r, version 7 through W_v."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        f = config.width(d_model)
        self.key = nn.Linear(d_model, f, bias=False)
        self.value = nn.Linear(f, d_model, bias=False)
        self.receptance = nn.Linear(d_model, d_model, bias=False) if config.version == 6 else None
        late = (1 - layer / n_layers) ** (1 if config.version == 6 else 4)
        weight = 1 - (torch.arange(d_model) / d_model) ** late  # of the token before: least in the last channels
        self.mix_key = nn.Parameter(weight)
        nn.init.zeros_(self.value.weight)
        if self.receptance is None:
            nn.init.uniform_(self.key.weight, -0.5 * d_model**-0.5, 0.5 * d_model**-0.5)
        else:
            self.mix_receptance = nn.Parameter(weight.clone())
            nn.init.orthogonal_(self.key.weight)
            nn.init.zeros_(self.receptance.weight)

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        before, last = shift(x, None if state is None else state.shift, ctx)
        step = before - x
        y = self.value(F.relu(self.key(x + step * self.mix_key)).square())
        if self.receptance is not None:
            y = torch.sigmoid(self.receptance(x + step * self.mix_receptance)) * y
        return y, State(last)
