"""Differential attention: two softmax maps a head, the second subtracted from the first (Ye et al., arXiv:2410.05258).

    o_i = (softmax(q1 k1) - lambda softmax(q2 k2)) v

mix: reparametrised (the paper)      lambda = exp(lq1 . lk1) - exp(lq2 . lk2) + lambda_init, one a layer;
                                     lambda_init = 0.8 - 0.6 exp(-0.3 layer), layer 0 the first mixer;
                                     v is twice as wide as a key; y = W_o ((1 - lambda_init) rmsnorm(o)), each head on its own
mix: sigmoid (the authors' second    lambda = sigmoid(W_lambda x), one a token and head;
version, unilm Diff-Transformer-V2)  both maps of a head read the same keys and values; y = W_o o

With n_kv_heads < n_heads head i reads key head i // (n_heads / n_kv_heads), and each of its maps that head's keys of the same map.
`pairing` says which rows of the projections belong together: adjacent (2n, 2n + 1; unilm) or halves (n, n + n_heads; DiffLlama).
"""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from blocks import base
from blocks.base import Cost
from blocks.context import Context
from blocks.errors import divisors, one_of, require
from blocks.keys import Keys, append, query_documents, trim
from blocks.parts import RMSNorm, linear_flops, residual_linear
from blocks.rope import Rope, rotate
from kernels import attention


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    paper: ClassVar[str] = "Differential Transformer, arXiv:2410.05258"

    n_heads: int = 2  # differential heads: each is a pair of maps, so half as many as in an equal multi-head attention
    n_kv_heads: int | None = None  # differential key and value heads, a divisor of n_heads; null: as many as n_heads
    head_dim: int | None = None  # channels of a query; null: d_model / (2 n_heads), with mix: sigmoid d_model / n_heads
    mix: str = "reparametrised"  # lambda: reparametrised (one a layer, the paper's) | sigmoid (one a token and head)
    pairing: str = "adjacent"  # which projected heads are a pair: adjacent (unilm) | halves (DiffLlama)
    rope: Rope | None = field(default_factory=Rope)  # rotary positions of queries and keys (see Rope); null: no positions
    window: int | None = None  # keys that a token sees, itself included (sliding window); null: all before it
    sink_tokens: int = 0  # first tokens of a document that stay visible behind the window (StreamingLLM, arXiv:2309.17453)
    norm_affine: bool = True  # a weight in the norm of the heads (unilm has one, DiffLlama none); unused with mix: sigmoid
    norm_eps: float = 1e-5  # added to the mean square under the root of that norm

    def check(self, d_model: int) -> None:
        one_of("mix", self.mix, ("reparametrised", "sigmoid"))
        one_of("pairing", self.pairing, ("adjacent", "halves"))
        require(self.n_heads >= 1, "n_heads", self.n_heads, "must be at least 1")
        parts = self.n_heads * self.sets
        whole = self.head_dim is not None or d_model % parts == 0
        require(whole, "n_heads", self.n_heads, f"{parts} queries must divide d_model = {d_model}", f"or set head_dim; {divisors(d_model)}")
        require(self.head_dim is None or self.head_dim >= 1, "head_dim", self.head_dim, "must be at least 1")
        m = self.kv_heads
        require(m >= 1 and self.n_heads % m == 0, "n_kv_heads", m, f"must divide n_heads = {self.n_heads}", divisors(self.n_heads))
        if self.rope is not None:
            self.rope.check(self.width(d_model))
        require(self.window is None or self.window >= 1, "window", self.window, "must be at least 1: a token sees itself")
        require(self.sink_tokens >= 0, "sink_tokens", self.sink_tokens, "can't be negative")
        require(self.sink_tokens == 0 or self.window is not None, "sink_tokens", self.sink_tokens, "has no effect without a window")

    @property
    def kv_heads(self) -> int:
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def sets(self) -> int:
        """Sets of keys a head: one a map, or one that both maps share. A value is as many times wider than a key."""
        return 2 if self.mix == "reparametrised" else 1

    def resolved(self, d_model: int) -> "Config":
        return replace(self, n_kv_heads=self.kv_heads, head_dim=self.width(d_model))

    def width(self, d_model: int) -> int:
        """The width of a query and of a key."""
        return d_model // (self.n_heads * self.sets) if self.head_dim is None else self.head_dim

    def cost(self, d_model: int, length: int) -> Cost:
        h, m, e, n = self.n_heads, self.kv_heads, self.width(d_model), self.sets
        paper = self.mix == "reparametrised"
        linear = d_model * (2 * h * e + 2 * n * m * e + n * h * e) + (0 if paper else d_model * h)
        spare = 4 * e + self.norm_affine * 2 * e if paper else 0
        keys = length if self.window is None else min(length, self.sink_tokens + self.window - 1)
        projections = linear_flops(length, 1, linear)
        return Cost(
            params=linear + spare,
            flops=projections + attention.flops(length, h, e, n * e, window=self.window, sink_tokens=self.sink_tokens, maps=2),
            executed_flops=projections
            + attention.executed_flops(length, h, e, n * e, window=self.window, sink_tokens=self.sink_tokens, maps=2),
            state_bytes=4 * keys * 2 * n * m * e,
        )

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    """The tokens read so far."""

    cache: Keys  # keys (b, s, sets n_kv_heads, head_dim), set by set; values (b, s, n_kv_heads, sets head_dim)


class Block(nn.Module):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        self.config = config
        h, m, e, n = config.n_heads, config.kv_heads, config.width(d_model), config.sets
        self.sizes = [2 * h * e, n * m * e, n * m * e]
        self.qkv = nn.Linear(d_model, sum(self.sizes), bias=False)
        self.out = residual_linear(n * h * e, d_model, n_layers)
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * layer)
        if config.mix == "reparametrised":
            self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2 = (nn.Parameter(0.1 * torch.randn(e)) for _ in range(4))
            self.norm = RMSNorm(n * e, eps=config.norm_eps, affine=config.norm_affine)
        else:
            self.mix = nn.Linear(d_model, h, bias=False)

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        c = self.config
        q, k, v = self._project(x, ctx)
        cache = append(None if state is None else state.cache, k, v, ctx)
        o = attention.differential(
            q,
            cache.keys.unflatten(2, (c.sets, -1)),
            cache.values,
            self._lambda(x),
            k_positions=cache.positions,
            q_documents=query_documents(cache, ctx),
            k_documents=cache.documents,
            window=c.window,
            sink_tokens=c.sink_tokens,
        )
        if c.mix == "reparametrised":
            o = self.norm(o) * (1 - self.lambda_init)
        return self.out(o.flatten(2)), State(trim(cache, c.window, c.sink_tokens))

    def _lambda(self, x: Tensor) -> Tensor:
        """(b, t, h)"""
        if self.config.mix == "sigmoid":
            return self.mix(x).sigmoid()
        first, second = (self.lambda_q1 * self.lambda_k1).sum().exp(), (self.lambda_q2 * self.lambda_k2).sum().exp()
        return (first - second + self.lambda_init).expand(*x.shape[:2], self.config.n_heads)

    def _project(self, x: Tensor, ctx: Context) -> tuple[Tensor, Tensor, Tensor]:
        """q (b, t, 2, h, e), k (b, t, sets m, e) set by set, v (b, t, m, sets e)."""
        c = self.config
        q, k, v = self.qkv(x).split(self.sizes, -1)
        e = q.shape[-1] // (2 * c.n_heads)
        q, k, v = self._paired(q, 2, e), self._paired(k, c.sets, e), self._paired(v, c.sets, e)
        v = v.transpose(2, 3).flatten(3)
        q, k = q.flatten(2, 3), k.flatten(2, 3)
        if c.rope is not None:
            q, k = rotate(q, ctx.positions, c.rope), rotate(k, ctx.positions, c.rope)
        return q.unflatten(2, (2, -1)), k, v

    def _paired(self, x: Tensor, maps: int, e: int) -> Tensor:
        """Projected heads (b, t, heads e) -> (b, t, maps, heads / maps, e)."""
        if self.config.pairing == "halves":
            return x.unflatten(2, (maps, -1, e))
        return x.unflatten(2, (-1, maps, e)).transpose(2, 3)
