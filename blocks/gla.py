"""Gated linear attention: a matrix memory that forgets, by learned gates or at fixed rates (arXiv:2312.06635).

    q, k, v, z = W x               optionally silu(conv(.)) or an activation of q, k, v, then q and k turned by RoPE
    S_t = diag(exp g_t) S_{t-1} + k_t v_t^T;  o_t = scale S_t^T q_t
    out = W_o (RMSNorm(o) act(z))

`gate` says how a memory forgets, tau = gate_normaliser, head i = 0 .. h - 1, layer l = 0 .. L - 1 of L:

    vector       g = logsigmoid(W_2 W_1 x + b) / tau     a rate a key channel (GLA)
    scalar       g = logsigmoid(W x + b) / tau           a rate a head (simple GLA)
    retnet       g = log(1 - 2^(-5 - i))                 fixed (RetNet, arXiv:2307.08621)
    lightning    g = -2^(-8 (i + 1) / h) (1 - l / (L - 1))  fixed, ALiBi's slopes, less in late layers (MiniMax-01, arXiv:2501.08313)
    transnormer  g = -(8 i / h) (1 - l / L)              fixed, linear in the head (TransNormerLLM, arXiv:2307.14995)
    none         g = 0

Published settings, with K = expand_k d and V = expand_v d wide keys and values:

    GLA        the defaults                                                            4 d^2 + 16 d + 16 K + K + d / h parameters
    simple GLA gate: scalar, expand_k: 1, conv: 4                                      5 d^2 + 12 d + (d + 1) h + d / h
    RetNet     gate: retnet, expand_k: 1, expand_v: 2, rope: {}                        8 d^2 + 2 d / h
    Lightning  gate: lightning, expand_k: 1, qk_activation: silu, v_activation: silu,  5 d^2 + d
               norm: full, output_gate: sigmoid, scale: 1

In general d (2 K + 3 V) + conv (2 K + V) + the gate's + V / h (norm: head) or V (norm: full); without output gate d V less.
State: K V / h numbers and the convolution's last inputs.

With n_kv_heads = m < h (GLA's published code, SpikingBrain arXiv:2509.05276) there are m heads of keys, values and decays and so m
memories, each read by h / m queries, head i that of i // (h / m): keys, values and vector gates are K m / h and V m / h wide, gates of a
head are m, the fixed ones those of m heads, and the state is m / h of the above.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from blocks.base import Cost
from blocks.context import Context
from blocks.errors import divisors, one_of, require
from blocks.forgetting import Bounded
from blocks.parts import RMSNorm, ShortConv, linear_flops, mask, residual_linear
from blocks.rope import Rope, rotate
from kernels import decay
from kernels.conv import flops as conv_flops
from kernels.dtypes import wide

GATES = ("vector", "scalar", "retnet", "lightning", "transnormer", "none")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "silu": F.silu, "relu": F.relu}
OUTPUT_GATES: dict[str, Callable[[Tensor], Tensor]] = {"swish": F.silu, "sigmoid": torch.sigmoid}


@dataclass(frozen=True, kw_only=True)
class Config(Bounded):
    paper: ClassVar[str] = "GLA, arXiv:2312.06635; RetNet, arXiv:2307.08621; Lightning attention, arXiv:2501.08313"

    n_heads: int = 4  # query heads
    n_kv_heads: int | None = None  # heads of keys, values and decays, each with a memory, a divisor of n_heads; null: as many as n_heads
    expand_k: float = 0.5  # channels of all queries, in multiples of d_model; a head's keys are as wide as its queries
    expand_v: float = 1.0  # channels of the output of all query heads, in multiples of d_model
    gate: str = "vector"  # decay: vector | scalar (learned) | retnet | lightning | transnormer (fixed) | none; see above
    gate_rank: int = 16  # width between W_1 and W_2 of gate: vector
    gate_normaliser: float = 16.0  # tau: the larger, the less is forgotten; the learned decays begin near 1 - 0.7 / tau a token
    bias: bool = False  # biases in the projections to q, k and v
    rope: Rope | None = None  # rotary positions of queries and keys (see Rope); null: no positions
    conv: int = 0  # taps of a short causal convolution with a SiLU over q, k and v; 0: no convolution
    qk_activation: str = "none"  # activation of q and k: none | silu | relu
    v_activation: str = "none"  # activation of v: none | silu | relu
    scale: float | None = None  # factor of q; null: (channels of a head's keys)^-1/2
    norm: str = "head"  # RMS norm of the output: head (each on its own, one weight for all) | full (all heads together)
    output_gate: str = "swish"  # activation of the output's gate: swish | sigmoid | none (no gate)
    norm_eps: float = 1e-5  # added to the mean square under the root of the norm

    def check(self, d_model: int) -> None:
        super().check(d_model)
        h = self.n_heads
        require(h >= 1, "n_heads", h, "must be at least 1")
        m = self.kv_heads
        require(m >= 1 and h % m == 0, "n_kv_heads", m, f"must divide n_heads = {h}", divisors(h))
        for place in ("expand_k", "expand_v"):
            share = getattr(self, place)
            width = round(share * d_model)
            whole = math.isclose(width, share * d_model, rel_tol=1e-9) and width >= h and width % h == 0
            require(whole, place, share, f"times d_model {d_model} must be a multiple of n_heads {h}")
        one_of("gate", self.gate, GATES)
        require(self.gate_rank >= 1, "gate_rank", self.gate_rank, "must be at least 1")
        require(self.gate_normaliser > 0, "gate_normaliser", self.gate_normaliser, "must be above 0")
        require(self.conv >= 0 and self.conv != 1, "conv", self.conv, "must be 0 (none) or at least 2 taps")
        for place in ("qk_activation", "v_activation"):
            one_of(place, getattr(self, place), tuple(ACTIVATIONS))
            alone = not self.conv or getattr(self, place) == "none"
            require(alone, place, getattr(self, place), "can't follow the convolution, which has its own SiLU", "choices: none, or conv: 0")
        require(self.scale is None or self.scale > 0, "scale", self.scale, "must be above 0")
        one_of("norm", self.norm, ("head", "full"))
        one_of("output_gate", self.output_gate, (*OUTPUT_GATES, "none"))
        require(self.norm_eps > 0, "norm_eps", self.norm_eps, "must be above 0")
        if self.rope is not None:
            self.rope.check(self.widths(d_model)[0] // h)

    @property
    def kv_heads(self) -> int:
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    def resolved(self, d_model: int) -> "Config":
        return replace(self, n_kv_heads=self.kv_heads)

    def widths(self, d_model: int) -> tuple[int, int]:
        """K and V, the widths of all query heads' keys and values."""
        return round(self.expand_k * d_model), round(self.expand_v * d_model)

    def sizes(self, d_model: int) -> list[int]:
        """The widths of q, k and v."""
        K, V = self.widths(d_model)
        return [K, K // self.n_heads * self.kv_heads, V // self.n_heads * self.kv_heads]

    def cost(self, d_model: int, length: int) -> Cost:
        h, m, (K, V), sizes = self.n_heads, self.kv_heads, self.widths(d_model), self.sizes(d_model)
        channels = sum(sizes)
        matrices = d_model * (channels + (1 if self.output_gate == "none" else 2) * V)
        biases = {"vector": sizes[1], "scalar": m}.get(self.gate, 0) + self.bias * channels
        matrices += {"vector": self.gate_rank * (d_model + sizes[1]), "scalar": d_model * m}.get(self.gate, 0)
        linear = linear_flops(length, 1, matrices)
        return self.recall_cost(length, m, K // h, V // h, gate=self.kind_of_gate, queries=h) + Cost(
            params=matrices + biases + self.conv * channels + (V // h if self.norm == "head" else V),
            flops=linear + conv_flops(length, channels, self.conv),
            executed_flops=linear,
            state_bytes=4 * max(self.conv - 1, 0) * channels,
        )

    @property
    def kind_of_gate(self) -> decay.Gate:
        """What the recurrence sees of the gate."""
        if self.gate == "none":
            return "none"
        return "vector" if self.gate == "vector" else "scalar"

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    conv: Tensor | None  # (b, conv - 1, channels of q, k, v) float32: the last inputs of the convolution; None = without one
    memory: Tensor  # (b, n_kv_heads, K / h, V / h) float32
    recent: Tensor | None = None  # (b, r, k + v + gates) float32: the last r keys, values and log decays; None = without state_window


class Block(nn.Module):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        self.config = config
        h, m, (K, V) = config.n_heads, config.kv_heads, config.widths(d_model)
        self.scale = (K // h) ** -0.5 if config.scale is None else config.scale
        self.sizes = config.sizes(d_model)
        self.heads = [h, m, m]
        self.in_proj = nn.Linear(d_model, sum(self.sizes), bias=config.bias)  # q, k, v
        self.z_proj = nn.Linear(d_model, V, bias=False) if config.output_gate != "none" else None
        self.conv = ShortConv(sum(self.sizes), config.conv) if config.conv else None
        self.g_proj = _gate_projection(config, d_model, self.sizes[1])
        self.rates = fixed_rates(config.gate, m, layer, n_layers)  # plain numbers: as constant as the config, never cast or saved
        self.norm = RMSNorm(V // h if config.norm == "head" else V, eps=config.norm_eps)
        self.out_proj = residual_linear(V, d_model, n_layers)
        if config.bias:
            nn.init.zeros_(self.in_proj.bias)

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        conv, memory, recent = (None, None, None) if state is None else state
        q, k, v, conv = self._heads(x, conv, ctx)
        o, memory, recent = self.config.recall(q * self.scale, mask(k, ctx), v, self.gates(x, ctx), memory, recent, ctx)
        o = self.norm(o).flatten(2) if self.config.norm == "head" else self.norm(o.flatten(2))
        if self.z_proj is not None:
            o = o * OUTPUT_GATES[self.config.output_gate](self.z_proj(x))
        return self.out_proj(o), State(conv, memory, recent)

    def _heads(self, x: Tensor, conv: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """q (b, t, h, k), k (b, t, m, k), v (b, t, m, v), and the convolution's state."""
        mixed = self.in_proj(x)
        if self.conv is not None:
            mixed, conv = self.conv(mixed, conv, ctx)
        q, k, v = (i.unflatten(-1, (n, -1)) for n, i in zip(self.heads, mixed.split(self.sizes, -1), strict=True))
        act = ACTIVATIONS[self.config.qk_activation]
        q, k, v = act(q), act(k), ACTIVATIONS[self.config.v_activation](v)
        if self.config.rope is not None:
            q, k = rotate(q, ctx.positions, self.config.rope), rotate(k, ctx.positions, self.config.rope)
        return q, k, v, conv

    def gates(self, x: Float[Tensor, "b t d"], ctx: Context) -> Tensor | None:
        """The log decay: (b, t, m), (b, t, m, k) with a vector gate, None without a gate; 0 at padding."""
        g = self._own_gates(x)
        if g is None:
            return self.config.retention_alone(x, self.config.kv_heads, ctx)
        return self.config.retained(mask(g, ctx), ctx)

    def _own_gates(self, x: Tensor) -> Tensor | None:
        if self.rates is not None:
            rates = torch.tensor(self.rates, dtype=wide(x).dtype, device=x.device)
            return rates.expand(*x.shape[:2], -1)
        if self.g_proj is None:
            return None
        g = F.logsigmoid(wide(self.g_proj(x))) / self.config.gate_normaliser
        return g.unflatten(-1, (self.config.kv_heads, -1)) if self.config.gate == "vector" else g


def _gate_projection(config: Config, d_model: int, keys: int) -> nn.Module | None:
    """The learned gate's logits, whose bias starts at 0; None where the gate isn't learned."""
    if config.gate == "vector":
        last = nn.Linear(config.gate_rank, keys)
        projection: nn.Module = nn.Sequential(nn.Linear(d_model, config.gate_rank, bias=False), last)
    elif config.gate == "scalar":
        projection = last = nn.Linear(d_model, config.kv_heads)
    else:
        return None
    nn.init.zeros_(last.bias)
    return projection


def fixed_rates(gate: str, heads: int, layer: int, n_layers: int) -> list[float] | None:
    """The log decay of each head where it is fixed; see the file's docstring."""
    if gate == "retnet":
        return [math.log1p(-(2.0 ** (-5 - i))) for i in range(heads)]
    if gate == "lightning":
        share = 1 - layer / (n_layers - 1 + 1e-5) + 1e-5  # MiniMax's guard against a single layer; the last one hardly forgets
        return [-(2.0 ** (-8 * (i + 1) / heads)) * share for i in range(heads)]
    if gate == "transnormer":
        return [-8 * i / heads * (1 - layer / n_layers) for i in range(heads)]
    return None
