"""RWKV's channel mixer: a squared-ReLU MLP that also sees the token before (arXiv:2404.05892, version 7: arXiv:2503.14456).

mix(m) = x_t + (x_{t-1} - x_t) m           in version 4 (arXiv:2305.13048) m is of the token itself: x_{t-1} + (x_t - x_{t-1}) m
version 4:  y = sigmoid(W_r mix(m_r)) * W_v relu(W_k mix(m_k))^2
version 6:  the same, with a narrower hidden width
version 7:  y = W_v relu(W_k mix(m_k))^2
"""

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from blocks import base
from blocks.base import Cost
from blocks.context import Context
from blocks.errors import require
from blocks.parts import linear_flops, shift


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    kind: ClassVar[str] = "channel"
    paper: ClassVar[str] = "RWKV-5/6 (Eagle and Finch), arXiv:2404.05892"

    version: int = 6  # RWKV's version: 4 and 6 (with a receptance gate) | 7 (without)
    hidden: int | None = None  # hidden channels; null: 3.5 d_model in multiples of 32 (version 6), 4 d_model (versions 4 and 7)

    def check(self, d_model: int) -> None:
        require(self.version in (4, 6, 7), "version", self.version, "is not one of the choices", "choices: 4, 6, 7")
        require(self.width(d_model) >= 1, "hidden", self.hidden, f"must be at least 1 (it is {self.width(d_model)} at d_model {d_model})")

    def width(self, d_model: int) -> int:
        """The hidden width."""
        if self.hidden is not None:
            return self.hidden
        return 7 * d_model // 64 * 32 if self.version == 6 else 4 * d_model

    @property
    def gated(self) -> bool:
        """Whether there is a receptance gate."""
        return self.version != 7

    def resolved(self, d_model: int) -> "Config":
        return replace(self, hidden=self.width(d_model))

    def cost(self, d_model: int, length: int) -> Cost:
        matrices = 2 * d_model * self.width(d_model) + self.gated * d_model * d_model
        flops = linear_flops(length, 1, matrices)
        return Cost(params=matrices + (1 + self.gated) * d_model, flops=flops, executed_flops=flops, state_bytes=4 * d_model)

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    shift: Tensor  # (b, 1, d) float32: the last input


class Block(nn.Module):
    """See the file's docstring. Versions 4 and 6 start with y = 0 through W_v and W_r, version 7 through W_v."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        f = config.width(d_model)
        self.key = nn.Linear(d_model, f, bias=False)
        self.value = nn.Linear(f, d_model, bias=False)
        self.receptance = nn.Linear(d_model, d_model, bias=False) if config.gated else None
        late = (1 - layer / n_layers) ** (1 if config.gated else 4)
        self.of_itself = config.version == 4
        weight = (torch.arange(d_model) / d_model) ** late  # of the token itself: most in the last channels
        weight = weight if self.of_itself else 1 - weight
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
        near, far = (before, x) if self.of_itself else (x, before)
        step = far - near
        y = self.value(F.relu(self.key(near + step * self.mix_key)).square())
        if self.receptance is not None:
            y = torch.sigmoid(self.receptance(near + step * self.mix_receptance)) * y
        return y, State(last)
