"""The delta rule: DeltaNet, Gated DeltaNet and Kimi Delta Attention (arXiv:2406.06484, arXiv:2412.06464, arXiv:2510.26692).

q, k, v = silu(conv(W_q x)), silu(conv(W_k x)), silu(conv(W_v x));   q, k <- q / (|q| sqrt(d_k)), k / |k|  per head
beta = sigmoid(W_b x), times 2 with negative_eigenvalues (arXiv:2411.12537)
g = 0                                                 gate none:   DeltaNet
g = -exp(A_log) softplus(W_a x + dt_bias)             gate scalar: Gated DeltaNet, one a value head
g = -exp(A_log) softplus(W_up W_down x + dt_bias)     gate vector: Kimi Delta Attention, one a key channel
S- = diag(e^g) S_{t-1};   S_t = S- + beta k (v - S-^T k)^T;   o = S_t^T q
out = W_o (RMSNorm_heads(o) * act(gate x))            act: output_gate
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from blocks.base import Cost
from blocks.context import Context
from blocks.errors import one_of, require
from blocks.forgetting import Forgetting
from blocks.parts import RMSNorm, ShortConv, linear_flops, mask, residual_linear, step_bias
from kernels import conv, delta
from kernels.dtypes import wide

GATES = ("none", "scalar", "vector")
OUTPUT_GATES = ("none", "swish", "sigmoid")
NORM_EPS = 1e-6  # under the root of the length of q and k
DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 0.1, 1e-4  # softplus(dt_bias) at the start


@dataclass(frozen=True, kw_only=True)
class Config(Forgetting):
    paper: ClassVar[str] = "Gated DeltaNet, arXiv:2412.06464; DeltaNet, arXiv:2406.06484; Kimi Delta Attention, arXiv:2510.26692"

    n_heads: int = 4  # heads of q and k
    head_dim: int | None = None  # channels of a head's q and k; null: d_model / n_heads
    n_v_heads: int | None = None  # heads of v, each with a state, a multiple of n_heads (they share q and k); null: as n_heads
    expand_v: float = 1.0  # channels of a head's v, in multiples of those of its k
    gate: str = "scalar"  # decay: none (DeltaNet) | scalar (one a head, Gated DeltaNet) | vector (one a key channel, Kimi Delta Attention)
    gate_rank: int | None = None  # width of the low-rank projection of gate: vector; null: the channels of a head's v
    negative_eigenvalues: bool = False  # beta in (0, 2) instead of (0, 1), which tracking a state needs (arXiv:2411.12537)
    output_gate: str = "swish"  # gate of the output: none (DeltaNet) | swish (Gated DeltaNet) | sigmoid (Kimi Delta Attention)
    output_gate_rank: int | None = None  # width of a low-rank output gate (Kimi Delta Attention: head_dim); null: one full matrix
    output_gate_bias: bool = False  # a bias in the output gate
    conv: int = 4  # taps of a short causal convolution with a SiLU over q, k and v; 0: no convolution
    norm_eps: float = 1e-5  # added to the mean square under the root of each head's output norm

    def check(self, d_model: int) -> None:
        super().check(d_model)
        one_of("gate", self.gate, GATES)
        one_of("output_gate", self.output_gate, OUTPUT_GATES)
        require(self.n_heads >= 1, "n_heads", self.n_heads, "must be at least 1")
        given = self.head_dim is not None
        require(given or d_model % self.n_heads == 0, "n_heads", self.n_heads, f"must divide d_model {d_model}", "or give head_dim")
        require(self.key_width(d_model) >= 1, "head_dim", self.head_dim, "must be at least 1")
        heads = self.value_heads
        require(heads >= 1 and heads % self.n_heads == 0, "n_v_heads", heads, f"must be a multiple of n_heads {self.n_heads}")
        width = self.expand_v * self.key_width(d_model)
        whole = width >= 1 and math.isclose(width, round(width), rel_tol=1e-6)
        require(whole, "expand_v", self.expand_v, f"times head_dim {self.key_width(d_model)} must be a whole number")
        for name, rank in (("gate_rank", self.gate_rank), ("output_gate_rank", self.output_gate_rank)):
            require(rank is None or rank >= 1, name, rank, "must be at least 1")
        require(self.gate_rank is None or self.gate == "vector", "gate_rank", self.gate_rank, "is only of gate: vector")
        unused = self.output_gate_rank is not None or self.output_gate_bias
        require(not unused or self.output_gate != "none", "output_gate", self.output_gate, "has neither a rank nor a bias")
        require(self.conv >= 0, "conv", self.conv, "must be at least 0")

    @property
    def value_heads(self) -> int:
        return self.n_heads if self.n_v_heads is None else self.n_v_heads

    def key_width(self, d_model: int) -> int:
        """Key width of a head."""
        return d_model // self.n_heads if self.head_dim is None else self.head_dim

    def value_width(self, d_model: int) -> int:
        """Value width of a head."""
        return round(self.expand_v * self.key_width(d_model))

    def rank(self, d_model: int) -> int:
        """Width of the vector gate's low-rank projection."""
        return self.value_width(d_model) if self.gate_rank is None else self.gate_rank

    def resolved(self, d_model: int) -> "Config":
        rank = self.rank(d_model) if self.gate == "vector" else None
        return replace(self, head_dim=self.key_width(d_model), n_v_heads=self.value_heads, gate_rank=rank)

    def _matrices(self, d: int) -> int:
        """Weights of all projections."""
        h, hv, k, v = self.n_heads, self.value_heads, self.key_width(d), self.value_width(d)
        decay = {"none": 0, "scalar": d * hv, "vector": (d + hv * k) * self.rank(d)}[self.gate]
        wide_gate = d * hv * v if self.output_gate_rank is None else (d + hv * v) * self.output_gate_rank
        return d * (2 * h * k + 2 * hv * v + hv) + decay + (0 if self.output_gate == "none" else wide_gate)

    def cost(self, d_model: int, length: int) -> Cost:
        hv, k, v = self.value_heads, self.key_width(d_model), self.value_width(d_model)
        channels = 2 * self.n_heads * k + hv * v
        matrices = self._matrices(d_model)
        linear = linear_flops(length, 1, matrices)
        steps = {"none": 0, "scalar": 2 * hv, "vector": hv + hv * k}[self.gate]  # A_log and dt_bias
        bias = hv * v if self.output_gate_bias else 0
        return Cost(
            params=matrices + self.conv * channels + steps + bias + v,
            flops=linear + conv.flops(length, channels, self.conv) + delta.flops(length, hv, k, v),
            executed_flops=linear + delta.executed_flops(length, hv, k, v, vector=self.gate == "vector"),
            state_bytes=4 * (hv * k * v + max(0, self.conv - 1) * channels),
        )

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    conv: Tensor | None  # (b, taps - 1, c) float32: the last inputs of the convolution over q, k and v; None without one
    memory: Tensor  # (b, h, k, v) float32


class Block(nn.Module):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        h, hv, k, v = config.n_heads, config.value_heads, config.key_width(d_model), config.value_width(d_model)
        self.config, self.widths = config, (h * k, h * k, hv * v)
        self.key_width, self.value_width = k, v
        self.qkv = nn.Linear(d_model, sum(self.widths), bias=False)
        self.conv = ShortConv(sum(self.widths), config.conv) if config.conv else None
        self.beta = nn.Linear(d_model, hv, bias=False)
        self.decay = _decay_projection(config, d_model)
        if config.gate != "none":
            self.A_log = nn.Parameter(torch.empty(hv).uniform_(0.01 if config.gate == "scalar" else 1.0, 16).log())
            self.dt_bias = nn.Parameter(step_bias(hv if config.gate == "scalar" else hv * k, DT_MIN, DT_MAX, DT_FLOOR))
        self.output_gate = _output_gate(config, d_model, hv * v)
        self.norm = RMSNorm(v, eps=config.norm_eps)
        self.output = residual_linear(hv * v, d_model, n_layers)

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        past = State(None, None) if state is None else state  # type: ignore[arg-type]
        mixed = self.qkv(x)
        mixed, last = (F.silu(mixed), None) if self.conv is None else self.conv(mixed, past.conv, ctx)
        q, k, v = mixed.split(self.widths, -1)
        q, k = (_normalise(i.unflatten(-1, (-1, self.key_width))) for i in (q, k))
        v = v.unflatten(-1, (-1, self.value_width))
        shared = v.shape[2] // k.shape[2]
        if shared > 1:
            q, k = (i.repeat_interleave(shared, 2) for i in (q, k))
        beta = wide(self.beta(x)).sigmoid() * (2 if self.config.negative_eigenvalues else 1)
        g = self._log_decay(x)
        g = self.config.retention_alone(x, self.config.value_heads, ctx) if g is None else self.config.retained(mask(g, ctx), ctx)
        v = self.config.inserted(v)
        o, memory = delta.delta(q * self.key_width**-0.5, k, v, g, mask(beta, ctx), past.memory, reset=ctx.reset)
        return self.output(self._gated(self.norm(o), x).flatten(-2)), State(last, memory)

    def _log_decay(self, x: Tensor) -> Tensor | None:
        """(b, t, h) or (b, t, h, k), at least float32."""
        if self.decay is None:
            return None
        step = F.softplus(wide(self.decay(x)) + self.dt_bias)
        if self.config.gate == "scalar":
            return -self.A_log.exp() * step
        return -self.A_log.exp()[:, None] * step.unflatten(-1, (-1, self.key_width))

    def _gated(self, o: Tensor, x: Tensor) -> Tensor:
        if self.output_gate is None:
            return o
        gate = self.output_gate(x).view_as(o)
        return o * (F.silu(gate) if self.config.output_gate == "swish" else gate.sigmoid())


def _normalise(x: Tensor) -> Tensor:
    """x / |x| over the last dimension, at least in float32."""
    x = wide(x)
    return x * (x.square().sum(-1, keepdim=True) + NORM_EPS).rsqrt()


def _decay_projection(config: Config, d_model: int) -> nn.Module | None:
    heads, k, rank = config.value_heads, config.key_width(d_model), config.rank(d_model)
    if config.gate == "none":
        return None
    if config.gate == "scalar":
        return nn.Linear(d_model, heads, bias=False)
    return nn.Sequential(nn.Linear(d_model, rank, bias=False), nn.Linear(rank, heads * k, bias=False))


def _output_gate(config: Config, d_model: int, width: int) -> nn.Module | None:
    rank, bias = config.output_gate_rank, config.output_gate_bias
    if config.output_gate == "none":
        return None
    if rank is None:
        return nn.Linear(d_model, width, bias=bias)
    return nn.Sequential(nn.Linear(d_model, rank, bias=False), nn.Linear(rank, width, bias=bias))
