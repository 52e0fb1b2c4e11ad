"""RWKV-7's time mixer (Goose): a generalised delta rule with a decay per channel (Peng et al., arXiv:2503.14456).

    d = x_{t-1} - x_t;   x_s = x + d mix_s                                               for s in r, w, k, v, a, g
    r, k, v = W_r x_r, W_k x_k, W_v x_v
    w = -e^(-1/2) sigmoid(w_0 + tanh(x_w W_1) W_2)                                       log decay, in (-0.607, 0)
    a = sigmoid(a_0 + x_a A_1 A_2);   gate = sigmoid(x_g G_1) G_2
    v <- v + (v_first - v) sigmoid(v_0 + x_v V_1 V_2)                                    v_first: v of the first rwkv7 layer
    kappa = normalise_heads(k k_k);   k <- k (1 + (a - 1) k_a)
    S_t = diag(e^w) S_{t-1} - (kappa a) (S_{t-1}^T kappa)^T + k v^T;   o = S_t^T r
    out = W_o ((GroupNorm_heads(o) + (sum_heads r k r_k) v) gate)

The first rwkv7 layer of a forward leaves its v in ctx.shared; a layer that finds none mixes v with itself, which is v.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from blocks.base import Cost, no_decay
from blocks.context import Context
from blocks.errors import divisors, require
from blocks.forgetting import Forgetting
from blocks.parts import linear_flops, mask, shift
from kernels import delta
from kernels.dtypes import wide

NORM_EPS = 64e-5  # of the norm over a head
FASTEST = math.exp(-0.5)  # the largest decay exponent of a step
V_FIRST = "rwkv7_v_first"  # the key in ctx.shared


@dataclass(frozen=True, kw_only=True)
class Config(Forgetting):
    paper: ClassVar[str] = "RWKV-7 (Goose), arXiv:2503.14456"

    head_dim: int | None = None  # channels of a head's keys and values; null: 64, or d_model where that is less
    decay_rank: int | None = None  # width of the low-rank decay; null: 2.5 sqrt(d_model), in multiples of 32, at least 32
    rate_rank: int | None = None  # width of the low-rank in-context learning rate a; null: as decay_rank's
    value_rank: int | None = None  # width of the low-rank mix with the first layer's v; null: 1.7 sqrt(d_model), rounded likewise
    gate_rank: int | None = None  # width of the low-rank output gate; null: 5 sqrt(d_model), rounded likewise
    value_residual: bool = True  # whether v is mixed with that of the first rwkv7 layer (in that layer itself it is off as published)

    def check(self, d_model: int) -> None:
        super().check(d_model)
        e = self.width(d_model)
        require(
            e >= 2 and d_model % e == 0, "head_dim", self.head_dim, f"must divide d_model {d_model} and be at least 2", divisors(d_model)
        )
        for name in ("decay_rank", "rate_rank", "value_rank", "gate_rank"):
            rank = getattr(self, name)
            require(rank is None or rank >= 1, name, rank, "must be at least 1")
        unused = self.value_rank is not None and not self.value_residual
        require(not unused, "value_rank", self.value_rank, "is only of value_residual: true")

    def width(self, d_model: int) -> int:
        """Key and value width of a head."""
        return min(64, d_model) if self.head_dim is None else self.head_dim

    def ranks(self, d_model: int) -> tuple[int, int, int, int]:
        """Widths of the low-rank decay, rate, value mix (0 = none) and gate."""

        def official(rank: int | None, factor: float) -> int:
            return max(32, 32 * round(factor * math.sqrt(d_model) / 32)) if rank is None else rank

        value = official(self.value_rank, 1.7) if self.value_residual else 0
        return official(self.decay_rank, 2.5), official(self.rate_rank, 2.5), value, official(self.gate_rank, 5.0)

    def cost(self, d_model: int, length: int) -> Cost:
        d, e = d_model, self.width(d_model)
        h = d // e
        matrices = d * (4 * d + 2 * sum(self.ranks(d)))
        vectors = 13 + self.value_residual  # six mixes, w_0, a_0, k_k, k_a, r_k, the norm's weight and bias; v_0
        linear = linear_flops(length, 1, matrices)
        return Cost(
            params=matrices + vectors * d,
            flops=linear + delta.dplr_flops(length, h, e, e),
            executed_flops=linear + delta.dplr_executed_flops(length, h, e, e),
            state_bytes=4 * (d + h * e * e),
        )

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    shift: Tensor  # (b, 1, d) float32: the last input
    memory: Tensor  # (b, h, k, v) float32


class LowRank(nn.Module):
    """bias + act(x down) up, down and up of width `rank`. Initially down = 0 (the output is the bias) and up is orthogonal."""

    def __init__(self, d: int, rank: int, bias: Tensor | None) -> None:
        super().__init__()
        self.down = no_decay(nn.Parameter(torch.zeros(d, rank)))
        self.up = no_decay(nn.Parameter(nn.init.orthogonal_(torch.empty(rank, d), 0.1 * max(1.0, math.sqrt(rank / d)))))
        self.bias = None if bias is None else nn.Parameter(bias)

    def hidden(self, x: Tensor) -> Tensor:
        return x @ self.down

    def forward(self, hidden: Tensor) -> Tensor:
        y = wide(hidden @ self.up)
        return y if self.bias is None else y + self.bias


class Block(nn.Module):
    """See the file's docstring. Initially W_o = 0, and with it the output."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        d, e = d_model, config.width(d_model)
        self.config, self.head_dim = config, e
        decay_rank, rate_rank, value_rank, gate_rank = config.ranks(d)
        late, depth = 1 - layer / n_layers, layer / max(1, n_layers - 1)  # 1 .. almost 0, 0 .. 1
        spread, zigzag = torch.arange(d) / max(1, d - 1), _zigzag(d, e)
        powers = torch.tensor([0.2, 0.9, 0.7, 0.7, 0.9, 0.2])[:, None] * late  # of r, w, k, v, a, g
        self.mix = no_decay(nn.Parameter(1 - (torch.arange(d) / d) ** powers))
        self.decay = LowRank(d, decay_rank, -5.5 + 6 * spread ** (1 + depth**0.3) + 2.5 * zigzag)
        self.rate = LowRank(d, rate_rank, -0.19 + 0.3 * zigzag + 0.4 * (spread - 0.5))
        self.value_mix = LowRank(d, value_rank, 0.73 - 0.4 * (spread - 0.5)) if value_rank else None
        self.gate = LowRank(d, gate_rank, None)
        self.key_norm = nn.Parameter(0.71 - 0.1 * (spread - 0.5))  # k_k
        self.key_rate = nn.Parameter(torch.full((d,), 1.02))  # k_a
        self.bonus = no_decay(nn.Parameter(torch.full((d // e, e), -0.04)))  # r_k
        self.receptance = _uniform(d, 0.5)
        self.key = _uniform(d, 0.05)
        self.value = _uniform(d, 0.5)
        self.output = _uniform(d, 0.0)
        self.norm = nn.GroupNorm(d // e, d, eps=NORM_EPS)
        nn.init.constant_(self.norm.weight, ((1 + layer) / n_layers) ** 0.7)

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        before, last = shift(x, None if state is None else state.shift, ctx)
        step = before - x
        xr, xw, xk, xv, xa, xg = (x + step * mix for mix in self.mix.unbind(0))
        r, k = self.receptance(xr), self.key(xk)
        v = self._value(xv, ctx)
        w = -FASTEST * self.decay(torch.tanh(self.decay.hidden(xw))).sigmoid()
        a = self.rate(self.rate.hidden(xa)).sigmoid()
        kappa = F.normalize(wide(k * self.key_norm).unflatten(-1, (-1, self.head_dim)), dim=-1)
        k = k * (1 + (a - 1) * self.key_rate)
        r, w, k, v, a = (i.unflatten(-1, (-1, self.head_dim)) for i in (r, w, k, v, a))
        past = None if state is None else state.memory
        g, written = self.config.retained(mask(w, ctx), ctx), self.config.inserted(mask(k, ctx))
        o, memory = delta.dplr(r, g, written, v, mask(-kappa, ctx), kappa * a, past, reset=ctx.reset)
        o = self.norm(o.to(x.dtype).reshape(-1, x.shape[-1])).view_as(v) + (r * k * self.bonus).sum(-1, keepdim=True) * v
        gate = self.gate(torch.sigmoid(self.gate.hidden(xg)))
        return self.output((o.flatten(-2) * gate).to(x.dtype)), State(last, memory)

    def _value(self, x: Tensor, ctx: Context) -> Tensor:
        """v, mixed with that of the first rwkv7 layer."""
        v = self.value(x)
        first = ctx.shared.setdefault(V_FIRST, v)
        if self.value_mix is None:
            return v
        return v + (first - v) * self.value_mix(self.value_mix.hidden(x)).sigmoid()


def _uniform(d: int, bound: float) -> nn.Linear:
    """W (d, d), uniform in +-bound / sqrt(d)."""
    linear = nn.Linear(d, d, bias=False)
    nn.init.uniform_(linear.weight, -bound / math.sqrt(d), bound / math.sqrt(d))
    return linear


def _zigzag(d: int, head_dim: int) -> Tensor:
    """-1 .. 1 over each head's channels, squared in size."""
    z = 2 * (torch.arange(d) % head_dim) / (head_dim - 1) - 1
    return z * z.abs()
