"""Landmark attention: blocks of text are read through the landmark token that closes each (arXiv:2305.16300).

    q, k, v = W_qkv x (then a short convolution and a norm of q and k, where asked for), q and k turned by RoPE at true positions
    main_j = softmax over the regular keys of the query's own block and the landmarks of the earlier blocks, of q . k_j / sqrt(e)
    in_c,j = softmax over the regular keys of an earlier block c
    o = sum_{j in own block} main_j v_j + sum_{c earlier} main_{landmark of c} sum_{j in c} in_c,j v_j;   y = W_out o

Landmark tokens come from the model's token plan (`tokens: {landmark: {every: 50}}`). With `top_k` each query and head reads only the top_k
earlier blocks whose landmarks score highest: the same weights, and the same outputs where no more blocks than that exist.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from blocks import base
from blocks.base import Cost
from blocks.context import LANDMARK, Context
from blocks.errors import divisors, one_of, require
from blocks.keys import Keys, append, attend, cache_bytes, trim
from blocks.parts import RMSNorm, ShortConv, linear_flops, residual_linear
from blocks.rope import Rope, rotate
from kernels import attention, landmark
from kernels.conv import flops as conv_flops


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    paper: ClassVar[str] = "Landmark Attention, arXiv:2305.16300"
    needs_kinds: ClassVar[tuple[int, ...]] = (LANDMARK,)

    n_heads: int = 4  # query heads
    n_kv_heads: int | None = None  # key and value heads, a divisor of n_heads; none: n_heads
    head_dim: int | None = None  # width of a head; none: d_model / n_heads
    rope: Rope | None = field(default_factory=Rope)  # rotary positions; null: none
    top_k: int | None = None  # earlier blocks that a query reads; null: all, the form to train in
    qk_norm: str = "none"  # none | head (RMS norm of each head's q and k, one weight for all heads)
    norm_eps: float = 1e-6  # of qk_norm
    conv: int = 0  # taps of a short causal convolution over q, k and v; 0: no convolution
    conv_silu: bool = True  # a SiLU after the convolution

    def check(self, d_model: int) -> None:
        require(self.n_heads >= 1, "n_heads", self.n_heads, "must be at least 1")
        m = self.kv_heads
        require(m >= 1 and self.n_heads % m == 0, "n_kv_heads", m, f"must divide n_heads = {self.n_heads}", divisors(self.n_heads))
        whole = self.head_dim is not None or d_model % self.n_heads == 0
        require(whole, "n_heads", self.n_heads, f"must divide d_model = {d_model}", f"or set head_dim; {divisors(d_model)}")
        require(self.head_dim is None or self.head_dim >= 1, "head_dim", self.head_dim, "must be at least 1")
        require(self.top_k is None or self.top_k >= 1, "top_k", self.top_k, "must be at least 1, or null for all blocks")
        one_of("qk_norm", self.qk_norm, ("none", "head"))
        require(self.conv >= 0 and self.conv != 1, "conv", self.conv, "must be 0 (none) or at least 2 taps")
        if self.rope is not None:
            self.rope.check(self.width(d_model))

    @property
    def kv_heads(self) -> int:
        """Key and value heads."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    def width(self, d_model: int) -> int:
        """Width of a head."""
        return d_model // self.n_heads if self.head_dim is None else self.head_dim

    def cost(self, d_model: int, length: int) -> Cost:
        """All text: one open block, plain causal attention."""
        h, e = self.n_heads, self.width(d_model)
        flops, executed = attention.flops(length, h, e, e), attention.executed_flops(length, h, e, e)
        return self._projections(d_model, length) + Cost(
            flops=flops, executed_flops=executed, state_bytes=cache_bytes(length, self.kv_heads, e, e)
        )

    def cost_of_kinds(self, d_model: int, kinds: Sequence[int]) -> Cost:
        """With landmarks. Where blocks differ in length and top_k chooses among them, flops count the longest."""
        e, marks = self.width(d_model), [kind == LANDMARK for kind in kinds]
        flops = landmark.flops(marks, heads=self.n_heads, key=e, value=e, top_k=self.top_k)
        executed = landmark.executed_flops(marks, heads=self.n_heads, key=e, value=e)
        held = cache_bytes(len(kinds), self.kv_heads, e, e) + len(kinds)  # a byte a token marks the landmarks
        return self._projections(d_model, len(kinds)) + Cost(flops=flops, executed_flops=executed, state_bytes=held)

    def _projections(self, d_model: int, length: int) -> Cost:
        e = self.width(d_model)
        inner, channels = self.n_heads * e, (self.n_heads + 2 * self.kv_heads) * e
        linear = linear_flops(length, d_model, channels) + linear_flops(length, inner, d_model)
        return Cost(
            params=d_model * (channels + inner) + (self.qk_norm == "head") * 2 * e + self.conv * channels,
            flops=linear + conv_flops(length, channels, self.conv),
            executed_flops=linear,
            state_bytes=4 * max(self.conv - 1, 0) * channels,
        )

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    cache: Keys  # of all tokens of the current document
    landmarks: Tensor | None  # (b, s) bool: which of them are landmarks; None = no plan so far, all text
    conv: Tensor | None  # (b, conv - 1, c) float32: the last inputs of the convolution; None = without one


class Block(nn.Module):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        h, m, e = config.n_heads, config.kv_heads, config.width(d_model)
        self.sizes, self.e, self.rope, self.top_k = [h * e, m * e, m * e], e, config.rope, config.top_k
        self.qkv = nn.Linear(d_model, sum(self.sizes), bias=False)
        self.conv = ShortConv(sum(self.sizes), config.conv, silu=config.conv_silu) if config.conv else None
        self.q_norm = RMSNorm(e, eps=config.norm_eps) if config.qk_norm == "head" else None
        self.k_norm = RMSNorm(e, eps=config.norm_eps) if config.qk_norm == "head" else None
        self.out = residual_linear(h * e, d_model, n_layers)

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        q, k, v, conv = self._heads(x, None if state is None else state.conv, ctx)
        past = None if state is None else state.cache
        cache = append(past, k, v, ctx)
        marks = _append_marks(past, None if state is None else state.landmarks, ctx)
        if marks is None:
            o = attend(q, cache, ctx)
        else:
            o = landmark.landmark(q, cache.keys, cache.values, marks, documents=cache.documents, top_k=self.top_k)
        kept = trim(cache)
        return self.out(o.flatten(2)), State(kept, _trim_marks(marks, cache, kept), conv)

    def _heads(self, x: Tensor, conv: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """q (b, t, h, e), k and v (b, t, m, e), and the convolution's state."""
        qkv = self.qkv(x)
        if self.conv is not None:
            qkv, conv = self.conv(qkv, conv, ctx)
        q, k, v = (part.unflatten(-1, (-1, self.e)) for part in qkv.split(self.sizes, -1))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rope is not None:
            q, k = rotate(q, ctx.positions, self.rope), rotate(k, ctx.positions, self.rope)
        return q, k, v, conv


def _append_marks(past: Keys | None, marks: Tensor | None, ctx: Context) -> Tensor | None:
    """Which tokens of the cache after a piece are landmarks, in the cache's order: of each row the real ones last."""
    if marks is None and ctx.kinds is None:
        return None
    new = torch.zeros_like(ctx.positions, dtype=torch.bool) if ctx.kinds is None else ctx.kinds == LANDMARK
    if past is None:
        return new
    if marks is None:
        marks = new.new_zeros(past.keys.shape[:2])
    full = torch.cat([marks, new], 1)
    if ctx.padding is None:
        return full
    real = torch.ones_like(marks) if past.documents is None else past.documents >= 0
    return _living_last(full, torch.cat([real, ~ctx.padding], 1))


def _trim_marks(marks: Tensor | None, cache: Keys, kept: Keys) -> Tensor | None:
    """The landmarks of a trimmed cache: of each row the tokens of its current document, last."""
    if marks is None or cache.documents is None:
        return marks
    current = cache.documents.amax(1, keepdim=True)
    alive = (cache.documents == current) & (cache.documents >= 0)
    return (_living_last(marks & alive, alive))[:, marks.shape[1] - kept.keys.shape[1] :]


def _living_last(marks: Tensor, alive: Tensor) -> Tensor:
    return marks.gather(1, alive.long().argsort(dim=1, stable=True))
