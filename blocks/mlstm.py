"""mLSTM: a matrix memory with exponential input gates, as in xLSTM 7B (Beck et al., arXiv:2405.04517, 2503.13427).

    q, k, v, o = W x;  i = cap(W_i x + b_i);  f = cap(W_f x + b_f);  cap(z) = c tanh(z / c)
    C_t = sigmoid(f_t) C_{t-1} + exp(i_t) k_t v_t^T;  n_t = sigmoid(f_t) n_{t-1} + exp(i_t) k_t
    h_t = C_t^T q' / (max(|n_t . q'|, 1) + eps exp(m_t)),  q' = q_t / sqrt(key width)
    out = W_o (sigmoid(o) LayerNorm_heads(h))

C and n are held over exp(m), m_t = max(log sigmoid(f_t) + m_{t-1}, i_t), m = 0 before a text: that is a memory with decays of at
most 1 (kernels/decay), in which n is the column of a value that is always 1. The norm has a weight a channel and no bias.
Parameters with K = expand_k d and V = expand_v d wide keys and values: d (2 K + 3 V) + 2 (d + 1) h + V. State: K V / h + K + h.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from blocks import base
from blocks.base import Cost
from blocks.context import Context
from blocks.errors import require
from blocks.parts import linear_flops, mask, residual_linear
from kernels import decay
from kernels.dtypes import wide
from kernels.running_max import running_max


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    paper: ClassVar[str] = "xLSTM, arXiv:2405.04517; xLSTM 7B, arXiv:2503.13427"

    n_heads: int = 4  # h, heads
    expand_k: float = 0.5  # channels of all keys, in multiples of d_model
    expand_v: float = 1.0  # channels of all values, in multiples of d_model
    gate_softcap: float | None = 15.0  # c, bound of the gates' logits: c tanh(z / c); null: no bound
    eps: float = 1e-6  # added to the normaliser, in units of exp(m)
    norm_eps: float = 1e-6  # added to the variance under the root of each head's norm

    def check(self, d_model: int) -> None:
        h = self.n_heads
        require(h >= 1, "n_heads", h, "must be at least 1")
        for place in ("expand_k", "expand_v"):
            width = int(getattr(self, place) * d_model)
            fits = width >= h and width % h == 0
            require(fits, place, getattr(self, place), f"times d_model {d_model} must be a multiple of n_heads {h}")
        require(
            self.gate_softcap is None or self.gate_softcap > 0, "gate_softcap", self.gate_softcap, "must be above 0", "or null for none"
        )
        require(self.eps >= 0, "eps", self.eps, "can't be negative")
        require(self.norm_eps > 0, "norm_eps", self.norm_eps, "must be above 0")

    def widths(self, d_model: int) -> tuple[int, int]:
        """K and V, the widths of all heads' keys and values."""
        return int(self.expand_k * d_model), int(self.expand_v * d_model)

    def cost(self, d_model: int, length: int) -> Cost:
        h, (K, V) = self.n_heads, self.widths(d_model)
        matrices = d_model * (2 * K + 3 * V + 2 * h)
        linear = linear_flops(length, 1, matrices)
        k, v = K // h, V // h + 1  # the normaliser is one more value
        return Cost(
            params=matrices + 2 * h + V,
            flops=linear + decay.flops(length, h, k, v),
            executed_flops=linear + decay.executed_flops(length, h, k, v, gate="scalar"),
            state_bytes=4 * h * (k * v + 1),
        )

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, n_layers)


class State(NamedTuple):
    memory: Tensor  # (b, h, k, v + 1) float32: C and, as its last column, n, both over exp(peak)
    peak: Tensor  # (b, h) float32: m


class Block(nn.Module):
    """See the file's docstring. It starts with closed input gates (b_i = -10) and hardly forgets (b_f from 3 to 6)."""

    def __init__(self, config: Config, d_model: int, n_layers: int) -> None:
        super().__init__()
        self.config = config
        h, (K, V) = config.n_heads, config.widths(d_model)
        self.sizes = [K, K, V, V]
        self.in_proj = nn.Linear(d_model, sum(self.sizes), bias=False)  # q, k, v, o
        self.gate_proj = nn.Linear(d_model, 2 * h)  # i, f
        self.norm = nn.Parameter(torch.ones(V))
        self.out_proj = residual_linear(V, d_model, n_layers)
        with torch.no_grad():
            self.gate_proj.weight.zero_()
            inputs, forgets = self.gate_proj.bias.chunk(2)
            inputs.fill_(-10.0)
            forgets.copy_(torch.linspace(3.0, 6.0, h))

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        memory, peak = (None, None) if state is None else state
        q, k, v, o = self.in_proj(x).split(self.sizes, -1)
        q, k, v = (wide(i).unflatten(-1, (self.config.n_heads, -1)) for i in (q, k, v))
        written, kept, peaks = self.gates(x, peak, ctx)
        ones = torch.ones_like(v[..., :1])
        keys = mask(k * written[..., None], ctx)
        read, memory = decay.decay(q * q.shape[-1] ** -0.5, keys, torch.cat([v, ones], -1), kept, memory, reset=ctx.reset)
        h, normaliser = read[..., :-1], read[..., -1:]
        h = h / (torch.maximum(normaliser.abs(), (-peaks[..., None]).exp()) + self.config.eps)
        h = F.layer_norm(h, h.shape[-1:], eps=self.config.norm_eps).flatten(2) * self.norm
        return self.out_proj(torch.sigmoid(o) * h.to(x.dtype)), State(memory, peaks[:, -1].clone())

    def gates(self, x: Tensor, peak: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor, Tensor]:
        """exp(i - m), the log decay of what is held over exp(m), and m: (b, t, h). Padding leaves m as it was."""
        logits, cap = wide(self.gate_proj(x)), self.config.gate_softcap
        i, f = (logits if cap is None else cap * torch.tanh(logits / cap)).chunk(2, -1)
        f = mask(F.logsigmoid(f), ctx)
        i = i if ctx.padding is None else i.masked_fill(ctx.padding[..., None], -torch.inf)
        earlier, peaks = running_max(f, i, peak, start=0.0, reset=ctx.reset)
        return (i - peaks).exp(), f + (earlier - peaks), peaks
