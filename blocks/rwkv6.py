"""RWKV-6's time mixer (Finch): matrix memory, a decay for every key channel and token (Peng et al., arXiv:2404.05892).

d = x_{t-1} - x_t;  m = tanh((x + d mix_x) W_down) split in five, each times its own W_up
x_s = x + d (mix_s + m_s)                                              for s in w, k, v, r, g
g = -exp(w_0 + tanh(x_w D_down) D_up);  r, k, v = W_r x_r, W_k x_k, W_v x_v
S_t = diag(exp g) S_{t-1} + k v^T;      o = (S_{t-1} + diag(u) k v^T)^T r
out = W_o (GroupNorm_heads(o) silu(W_g x_g))
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from blocks.base import Cost, no_decay
from blocks.context import Context
from blocks.errors import divisors, require
from blocks.forgetting import Bounded
from blocks.parts import linear_flops, mask, shift
from kernels.dtypes import wide

NORM_EPS = 64e-5  # of the norm over a head: 1e-5 times the square of the 8 that the outputs were once divided by


@dataclass(frozen=True, kw_only=True)
class Config(Bounded):
    paper: ClassVar[str] = "RWKV-6 (Finch), arXiv:2404.05892"

    head_dim: int | None = None  # channels of a head's keys and values; null: 64, or d_model where that is less
    mix_rank: int = 32  # width of each of the five low-rank mixes
    decay_rank: int = 64  # width of the low-rank decay

    def check(self, d_model: int) -> None:
        super().check(d_model)
        e = self.width(d_model)
        require(e >= 1 and d_model % e == 0, "head_dim", self.head_dim, f"must divide d_model {d_model}", divisors(d_model))
        require(self.mix_rank >= 1, "mix_rank", self.mix_rank, "must be at least 1")
        require(self.decay_rank >= 1, "decay_rank", self.decay_rank, "must be at least 1")

    def width(self, d_model: int) -> int:
        """Key and value width of a head."""
        return min(64, d_model) if self.head_dim is None else self.head_dim

    def cost(self, d_model: int, length: int) -> Cost:
        e = self.width(d_model)
        h = d_model // e
        matrices = d_model * (5 * d_model + 10 * self.mix_rank + 2 * self.decay_rank)
        linear = linear_flops(length, 1, matrices)
        return self.recall_cost(length, h, e, e, gate="vector") + Cost(
            params=matrices + 10 * d_model,  # six mixes, w_0, u, the norm's weight and bias
            flops=linear,
            executed_flops=linear,
            state_bytes=4 * d_model,
        )

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    shift: Tensor  # (b, 1, d) float32: the last input
    memory: Tensor  # (b, h, k, v) float32
    recent: Tensor | None = None  # (b, r, 3 d) float32: the last r keys, values and log decays; None = without state_window


class Block(nn.Module):
    """See the file's docstring. Initially W_o = 0, and with it the output."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        d, e = d_model, config.width(d_model)
        self.config, self.head_dim = config, e
        self.mix_x = nn.Parameter(torch.empty(d))
        self.mix = no_decay(nn.Parameter(torch.empty(5, d)))  # of w, k, v, r, g
        self.mix_down = no_decay(nn.Parameter(torch.zeros(d, 5 * config.mix_rank)))
        self.mix_up = no_decay(nn.Parameter(torch.empty(5, config.mix_rank, d).uniform_(-0.01, 0.01)))
        self.decay = nn.Parameter(torch.empty(d))  # w_0
        self.decay_down = no_decay(nn.Parameter(torch.zeros(d, config.decay_rank)))
        self.decay_up = no_decay(nn.Parameter(torch.empty(config.decay_rank, d).uniform_(-0.01, 0.01)))
        self.bonus = no_decay(nn.Parameter(torch.empty(d // e, e)))  # u
        self.receptance = nn.Linear(d, d, bias=False)
        self.key = nn.Linear(d, d, bias=False)
        self.value = nn.Linear(d, d, bias=False)
        self.gate = nn.Linear(d, d, bias=False)
        self.output = nn.Linear(d, d, bias=False)
        self.norm = nn.GroupNorm(d // e, d, eps=NORM_EPS)
        self._init_by_depth(layer, n_layers)
        for linear, gain in ((self.receptance, 1.0), (self.key, 0.1), (self.value, 1.0), (self.gate, 0.1)):
            nn.init.orthogonal_(linear.weight, gain)
        nn.init.zeros_(self.output.weight)

    @torch.no_grad()
    def _init_by_depth(self, layer: int, n_layers: int) -> None:
        """The official schedule: deeper layers look back more and forget in another order of channels."""
        d = self.mix_x.shape[0]
        depth, late = layer / max(1, n_layers - 1), 1 - layer / n_layers  # 0 .. 1, 1 .. almost 0
        at = torch.arange(d) / d
        spread = torch.arange(d) / max(1, d - 1)
        same, half = 1 - at**late, 1 - at ** (0.5 * late)
        self.mix_x.copy_(same)
        self.mix.copy_(torch.stack([same, same, same - 0.3 * depth, half, half]))
        self.decay.copy_(-6 + 5 * spread ** (0.7 + 1.3 * depth))
        zigzag = ((torch.arange(d) + 1) % 3 - 1) * 0.1
        self.bonus.copy_((depth * (1 - spread) + zigzag).view_as(self.bonus))
        self.norm.weight.fill_(((1 + layer) / n_layers) ** 0.7)

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        b, t, d = x.shape
        past, memory, recent = (None, None, None) if state is None else state
        before, last = shift(x, past, ctx)
        xw, xk, xv, xr, xg = self._mixes(x, before - x)
        g = -(self.decay + wide(torch.tanh(xw @ self.decay_down) @ self.decay_up)).exp()
        r, k, v = (i.unflatten(-1, (-1, self.head_dim)) for i in (self.receptance(xr), self.key(xk), self.value(xv)))
        g = self.config.retained(mask(g.unflatten(-1, (-1, self.head_dim)), ctx), ctx)
        o, memory, recent = self.config.recall(r, mask(k, ctx), v, g, memory, recent, ctx, bonus=self.bonus)
        o = self.norm(o.reshape(b * t, d)).view(b, t, d)
        return self.output(o * F.silu(self.gate(xg))), State(last, memory, recent)

    def _mixes(self, x: Tensor, step: Tensor) -> tuple[Tensor, ...]:
        """x_w, x_k, x_v, x_r, x_g."""
        b, t, d = x.shape
        low = torch.tanh((x + step * self.mix_x) @ self.mix_down)
        moved = low.reshape(b * t, 5, -1).transpose(0, 1) @ self.mix_up  # (5, b t, d)
        return (x + step * (self.mix[:, None, None] + moved.view(5, b, t, d))).unbind(0)
