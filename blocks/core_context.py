"""Core context aware attention: the far past by one pooled core a group, the near past by its tokens (arXiv:2412.12465).

    q, k, v = W_qkv x (then a short convolution and a norm of q and k, where asked for), q and k turned by RoPE at true positions
    core of a group: alpha = softmax of q_last . k_t / sqrt(e) over its g tokens;  K = sum alpha k_t, V = sum alpha v_t, per query head
    token x sees tokens 0 .. B-1 by their cores and B .. x themselves, B = g max(0, floor((x + 1 - local) / g))
    o = softmax([q . K ; q . k] / sqrt(e)) [V ; v];  y = W_out o

No parameters beyond attention's: a trained attention can be turned into it. A core is made when its group is complete, and seen
once the group has left the local part. A token meets about length / group + local keys, and the state holds as many.
"""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from blocks import base
from blocks.base import Cost
from blocks.context import Context
from blocks.errors import divisors, one_of, require
from blocks.keys import Keys, append, cache_bytes, query_documents, trim
from blocks.parts import RMSNorm, ShortConv, linear_flops, residual_linear
from blocks.rope import Rope, rotate
from kernels import core_context
from kernels.conv import flops as conv_flops


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    paper: ClassVar[str] = "Core Context Aware Transformers, arXiv:2412.12465"
    restartable: ClassVar[bool] = False  # groups are counted from the document's start

    n_heads: int = 4  # query heads
    n_kv_heads: int | None = None  # key and value heads, a divisor of n_heads; none: n_heads
    head_dim: int | None = None  # width of a head; none: d_model / n_heads
    rope: Rope | None = field(default_factory=Rope)  # rotary positions; null: none
    group: int = 16  # tokens a core
    local: int = 1024  # latest tokens that are seen themselves (up to group - 1 more), a multiple of group
    pooling: str = "core"  # how a group becomes a core: core (weighted by its last token's query), mean, max
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
        require(self.group >= 1, "group", self.group, "must be at least 1")
        nearest = f"nearest: {max(self.group, round(self.local / max(self.group, 1)) * self.group)}"
        require(
            self.local >= 1 and self.local % self.group == 0, "local", self.local, f"must be a multiple of group = {self.group}", nearest
        )
        one_of("pooling", self.pooling, core_context.POOLINGS)
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

    def held(self, length: int) -> int:
        """Tokens whose keys are kept after `length` of them: those that no token to come sees by a core."""
        return length - core_context.boundary(length - 1, self.group, self.local)

    def cost(self, d_model: int, length: int) -> Cost:
        h, m, e, groups = self.n_heads, self.kv_heads, self.width(d_model), length // self.group
        inner, channels = h * e, (h + 2 * m) * e
        linear = linear_flops(length, d_model, channels) + linear_flops(length, inner, d_model)
        linear += core_context.pool_flops(groups, self.group, heads=h, key=e, value=e, pooling=self.pooling)
        flops, executed = (
            f(length, self.group, self.local, heads=h, key=e, value=e) for f in (core_context.flops, core_context.executed_flops)
        )
        return Cost(
            params=d_model * (channels + inner) + (self.qk_norm == "head") * 2 * e + self.conv * channels,
            flops=linear + conv_flops(length, channels, self.conv) + flops,
            executed_flops=linear + executed,
            state_bytes=cache_bytes(self.held(length), m, e, e) + cache_bytes(groups, h, e, e) + 4 * max(self.conv - 1, 0) * channels,
        )

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class Cores(NamedTuple):
    """The cores of the current document, in order. b batch, p cores, h query heads."""

    keys: Tensor  # (b, p, h, e), in the dtype of the activations
    values: Tensor  # (b, p, h, e)
    documents: Tensor | None  # (b, p) int64: running count of documents in the row, -1 = leading padding; None = plain


class State(NamedTuple):
    cache: Keys  # the latest tokens: those that are not behind a core for all to come
    cores: Cores  # of every complete group
    conv: Tensor | None  # (b, conv - 1, c) float32: the last inputs of the convolution; None = without one


class Block(nn.Module):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        h, m, e = config.n_heads, config.kv_heads, config.width(d_model)
        self.config, self.sizes, self.e = config, [h * e, m * e, m * e], e
        self.qkv = nn.Linear(d_model, sum(self.sizes), bias=False)
        self.conv = ShortConv(sum(self.sizes), config.conv, silu=config.conv_silu) if config.conv else None
        self.q_norm = RMSNorm(e, eps=config.norm_eps) if config.qk_norm == "head" else None
        self.k_norm = RMSNorm(e, eps=config.norm_eps) if config.qk_norm == "head" else None
        self.out = residual_linear(h * e, d_model, n_layers)

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        config = self.config
        q, k, v, conv = self._heads(x, None if state is None else state.conv, ctx)
        cache = append(None if state is None else state.cache, k, v, ctx)
        documents = query_documents(cache, ctx)
        cores = _mint(None if state is None else state.cores, q, cache, ctx.positions, documents, config)
        o = core_context.core_context(
            q,
            cache.keys,
            cache.values,
            cores.keys,
            cores.values,
            ctx.positions,
            group=config.group,
            local=config.local,
            documents=documents,
            core_documents=cores.documents,
        )
        kept = config.held(cache.keys.shape[1]) if documents is None else config.local + config.group - 1
        return self.out(o.flatten(2)), State(trim(cache, kept + 1), _current(cores, cache), conv)

    def _heads(self, x: Tensor, conv: Tensor | None, ctx: Context) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """q (b, t, h, e), k and v (b, t, m, e), and the convolution's state."""
        qkv = self.qkv(x)
        if self.conv is not None:
            qkv, conv = self.conv(qkv, conv, ctx)
        q, k, v = (part.unflatten(-1, (-1, self.e)) for part in qkv.split(self.sizes, -1))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.config.rope is not None:
            q, k = rotate(q, ctx.positions, self.config.rope), rotate(k, ctx.positions, self.config.rope)
        return q, k, v, conv


def _mint(cores: Cores | None, q: Tensor, cache: Keys, positions: Tensor, documents: Tensor | None, config: Config) -> Cores:
    """The cores before, and those of the groups that the piece completes."""
    new = _plain_cores(q, cache, config) if documents is None else _packed_cores(q, cache, positions, documents, config)
    if cores is None:
        return new
    keys, values = (torch.cat([a.to(b.dtype), b], 1) for a, b in ((cores.keys, new.keys), (cores.values, new.values)))
    if new.documents is None:
        return Cores(keys, values, None)
    before = new.documents.new_zeros(cores.keys.shape[:2]) if cores.documents is None else cores.documents
    joined = torch.cat([before, new.documents], 1)
    return _compact(Cores(keys, values, joined), joined >= 0)


def _plain_cores(q: Tensor, cache: Keys, config: Config) -> Cores:
    """The groups that the piece completes, all rows alike: a plain cache begins at the start of a group."""
    g, s, before = config.group, cache.keys.shape[1], cache.keys.shape[1] - q.shape[1]
    start, stop = before // g * g, s // g * g
    keys, values = (
        x[:, start:stop].unflatten(1, (-1, g)) if stop > start else x.new_zeros(x.shape[0], 0, g, *x.shape[2:]) for x in cache[:2]
    )
    return Cores(*core_context.pool(q[:, start + g - 1 - before :: g], keys, values, pooling=config.pooling), None)


def _packed_cores(q: Tensor, cache: Keys, positions: Tensor, documents: Tensor, config: Config) -> Cores:
    """The groups that the piece completes in each row, those of rows with fewer behind padding. A group's tokens are consecutive keys."""
    complete = (positions % config.group == config.group - 1) & (documents >= 0)
    most = int(complete.sum(1).max())
    ends = complete.long().argsort(dim=1, stable=True)[:, complete.shape[1] - most :]  # (b, p)
    rows = torch.arange(q.shape[0], device=q.device)[:, None]
    last = ends + cache.keys.shape[1] - q.shape[1]
    tokens = (last[..., None] - torch.arange(config.group - 1, -1, -1, device=q.device)).clamp(min=0)
    keys, values = (x[rows[..., None], tokens] for x in cache[:2])
    cores = core_context.pool(q[rows, ends], keys, values, pooling=config.pooling)
    return Cores(*cores, torch.where(complete, documents, -1).gather(1, ends))


def _current(cores: Cores, cache: Keys) -> Cores:
    """The cores of the document that each row is in."""
    if cores.documents is None or cache.documents is None:
        return cores
    alive = (cores.documents == cache.documents.amax(1, keepdim=True)) & (cores.documents >= 0)
    cores = _compact(cores, alive)
    return Cores(*(None if x is None else x[:, alive.shape[1] - int(alive.sum(1).amax()) :] for x in cores))  # type: ignore[arg-type]


def _compact(cores: Cores, alive: Tensor) -> Cores:
    """Each row's living cores at its end, in their order, the others before them as padding."""
    order = alive.long().argsort(dim=1, stable=True)
    keys, values = (x.gather(1, order[..., None, None].expand_as(x)) for x in cores[:2])
    documents = torch.where(alive, cores.documents, -1) if cores.documents is not None else None
    return Cores(keys, values, None if documents is None else documents.gather(1, order))
