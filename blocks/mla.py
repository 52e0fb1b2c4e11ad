"""Multi-head latent attention: keys and values of all heads in one small latent a token, which is all that is kept (arXiv:2405.04434).

    q_h = [W_q,h u ; rope(W_qr,h u)]              u = x, or norm(W_dq x) with q_rank
    c = norm(W_dkv x), r = rope(W_kr x)           the state of a token: c of kv_rank and r of rope_dim numbers, r is shared by all heads
    k_h = [W_k,h c ; r],  v_h = W_v,h c
    y = W_o [softmax(scale q_h k_h) v_h]_h        scale 1/sqrt(nope_dim + rope_dim)

q_h k_h = (W_k,h^T q_h) c + q_h r, so heads can also meet the latents themselves and W_v,h comes last: keys and values are expanded, or
absorbed into queries and outputs, whichever needs fewer multiplications for the tokens at hand; both give the same numbers. Without
rope, rope_dim channels are shared by the heads all the same (Kimi Linear, arXiv:2510.26692).

With index_heads the attention is sparse (DeepSeek-V3.2, arXiv:2512.02556): each token sees the index_top_k tokens of the highest

    I_ij = sum_n (W_w x_i)_n relu(q'_in k'_j)     q' = W_iq u, k' = layernorm(W_ik x), rope on their first rope_dim channels

and the state keeps k' too. The choice has no gradient: the indexer stays as it is unless a loss of its own trains it.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from blocks import base
from blocks.base import Cost
from blocks.context import Context
from blocks.errors import divisors, one_of, require
from blocks.keys import Keys, append, attend, cache_bytes, query_documents, trim
from blocks.parts import RMSNorm, linear_flops, residual_linear
from blocks.rope import Rope, rotate
from kernels import attention, indexed


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    paper: ClassVar[str] = "Multi-head latent attention (DeepSeek-V2), arXiv:2405.04434"

    n_heads: int = 4  # query heads, each with keys and values made of the latent
    q_rank: int | None = None  # width of the queries' latent; null: queries straight from the input
    kv_rank: int | None = None  # width of the latent that is kept for keys and values; null: 4 nope_dim
    nope_dim: int | None = None  # channels of a head's queries and keys without positions; null: d_model / n_heads
    rope_dim: int | None = None  # channels with positions, in keys shared by all heads; null: half of nope_dim, even
    value_dim: int | None = None  # channels of a head's values; null: nope_dim
    rope: Rope | None = field(default_factory=lambda: Rope(pairs="adjacent"))  # of the rope_dim channels; null: none (Kimi Linear)
    norm_eps: float = 1e-6  # added to the mean square under the root of the latents' norms
    scale: float | None = None  # factor of the scores; null: (nope_dim + rope_dim)^-1/2
    bias: bool = False  # biases in the projections to the latents and in the output projection
    index_heads: int = 0  # heads of the indexer that chooses keys (DeepSeek-V3.2); 0: a token sees all tokens before it
    index_dim: int = 32  # channels of an indexer's head
    index_top_k: int = 64  # tokens that a token sees, those of the highest index scores
    index_pairs: str = "halves"  # channels of the indexer that rotate together, see Rope.pairs: halves (DeepSeek) | adjacent (GLM)

    def check(self, d_model: int) -> None:
        require(self.n_heads >= 1, "n_heads", self.n_heads, "must be at least 1")
        whole = self.nope_dim is not None or d_model % self.n_heads == 0
        require(whole, "n_heads", self.n_heads, f"must divide d_model = {d_model}", f"or set nope_dim; {divisors(d_model)}")
        for name in ("q_rank", "kv_rank", "nope_dim", "value_dim"):
            size = getattr(self, name)
            require(size is None or size >= 1, name, size, "must be at least 1")
        r = self.sizes(d_model).rope
        require(r >= 1, "rope_dim", r, "must be at least 1")
        if self.rope is not None:
            self.rope.check(r)
        require(self.index_heads >= 0, "index_heads", self.index_heads, "can't be negative")
        require(self.index_top_k >= 1, "index_top_k", self.index_top_k, "must be at least 1")
        require(self.index_heads == 0 or self.index_dim >= r, "index_dim", self.index_dim, f"must be at least rope_dim = {r}")
        one_of("index_pairs", self.index_pairs, ("halves", "adjacent"))

    def sizes(self, d_model: int) -> "Sizes":
        """The widths that this config means."""
        n = d_model // self.n_heads if self.nope_dim is None else self.nope_dim
        r = max(2, n // 4 * 2) if self.rope_dim is None else self.rope_dim
        kv, v = 4 * n if self.kv_rank is None else self.kv_rank, n if self.value_dim is None else self.value_dim
        return Sizes(kv, n, r, v, self.index_dim if self.index_heads else 0)

    def factor(self, d_model: int) -> float:
        """The factor of the scores."""
        z = self.sizes(d_model)
        return float(z.nope + z.rope) ** -0.5 if self.scale is None else self.scale

    def resolved(self, d_model: int) -> "Config":
        z = self.sizes(d_model)
        sized = replace(self, kv_rank=z.kv, nope_dim=z.nope, rope_dim=z.rope, value_dim=z.value, scale=self.factor(d_model))
        plain = {name: getattr(Config, name) for name in ("index_dim", "index_top_k", "index_pairs")}
        return sized if self.index_heads else replace(sized, **plain)

    def absorbs(self, d_model: int, queries: int, keys: int) -> bool:
        """Whether heads meet the latents themselves: always if sparse, else where it is less work for the last `queries` of `keys`."""
        z, pairs = self.sizes(d_model), queries * (2 * keys - queries + 1) // 2
        expanded = keys * z.kv * (z.nope + z.value) + pairs * (z.nope + z.rope + z.value)
        return self.index_heads > 0 or queries * z.kv * (z.nope + z.value) + pairs * (2 * z.kv + z.rope) < expanded

    def cost(self, d_model: int, length: int) -> Cost:
        h, z, n = self.n_heads, self.sizes(d_model), self.index_heads
        latents, down = (self.q_rank or 0), z.kv + z.rope
        weights = d_model * (latents + down + z.indexer + n) + (self.q_rank or d_model) * (h * (z.nope + z.rope) + n * z.indexer)
        weights += h * z.value * d_model + z.kv * h * (z.nope + z.value)
        params = weights + latents + z.kv + self.bias * (latents + down + d_model) + 2 * z.indexer
        linear, needed, executed = linear_flops(length, 1, weights), *self._attention_flops(d_model, length)
        held = cache_bytes(length, 1, z.rope + z.indexer, z.kv)
        return Cost(params=params, flops=linear + needed, executed_flops=linear + executed, state_bytes=held)

    def _attention_flops(self, d_model: int, length: int) -> tuple[int, int]:
        """Needed and executed, of `length` tokens read at once."""
        z = self.sizes(d_model)
        if self.index_heads:
            chosen, scored = (length, self.n_heads, z.kv + z.rope, z.kv, self.index_top_k), (length, self.index_heads, z.indexer)
            needed = indexed.flops(*chosen) + indexed.select_flops(*scored)
            return needed, indexed.executed_flops(*chosen) + indexed.executed_select_flops(*scored)
        absorbed = self.absorbs(d_model, length, length)
        widths = (z.kv + z.rope, z.kv) if absorbed else (z.nope + z.rope, z.value)
        return attention.flops(length, self.n_heads, *widths), attention.executed_flops(length, self.n_heads, *widths)

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class Sizes(NamedTuple):
    """Widths: of the latent, of a head's parts, of the indexer's key (0: none)."""

    kv: int
    nope: int
    rope: int
    value: int
    indexer: int


class State(NamedTuple):
    """The tokens read so far."""

    cache: Keys  # keys (b, s, 1, rope_dim + index_dim): the shared key and the indexer's; values (b, s, 1, kv_rank): the latent


class Block(nn.Module):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        self.config, self.sizes, self.scale = config, config.sizes(d_model), config.factor(d_model)
        h, z, rank = config.n_heads, self.sizes, config.q_rank
        self.q_down = nn.Linear(d_model, rank, bias=config.bias) if rank is not None else None
        self.q_norm = RMSNorm(rank, eps=config.norm_eps) if rank is not None else None
        self.q_up = nn.Linear(rank or d_model, h * (z.nope + z.rope), bias=False)
        self.kv_down = nn.Linear(d_model, z.kv + z.rope, bias=config.bias)
        self.kv_norm = RMSNorm(z.kv, eps=config.norm_eps)
        self.kv_up = nn.Linear(z.kv, h * (z.nope + z.value), bias=False)
        self.out = residual_linear(h * z.value, d_model, n_layers, bias=config.bias)
        self.indexer = Indexer(config, d_model) if config.index_heads else None

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        z, rope = self.sizes, self.config.rope
        u = x if self.q_down is None or self.q_norm is None else self.q_norm(self.q_down(x))
        q = _rotated(self.q_up(u).unflatten(-1, (self.config.n_heads, -1)), z.nope, rope, ctx)
        latent, key = self.kv_down(x).split([z.kv, z.rope], -1)
        key = _rotated(key[:, :, None], 0, rope, ctx)
        if self.indexer is not None:
            key = torch.cat([key, self.indexer.keys(x, ctx)], -1)
        cache = append(None if state is None else state.cache, key, self.kv_norm(latent)[:, :, None], ctx)
        chosen = None if self.indexer is None else self.indexer(x, u, cache, ctx)
        absorbs = self.config.absorbs(x.shape[2], x.shape[1], cache.keys.shape[1])
        o = self._absorbed(q, cache, chosen, ctx) if absorbs else self._expanded(q, cache, ctx)
        return self.out(o.flatten(2)), State(trim(cache))

    def _expanded(self, q: Tensor, cache: Keys, ctx: Context) -> Tensor:
        """Attention of q (b, t, h, nope + rope) to the keys and values of all heads: (b, t, h, value)."""
        z = self.sizes
        own, values = self.kv_up(cache.values[:, :, 0]).unflatten(-1, (self.config.n_heads, -1)).split([z.nope, z.value], -1)
        keys = torch.cat([own, cache.keys[..., : z.rope].expand(-1, -1, self.config.n_heads, -1)], -1)
        return attend(q, cache._replace(keys=keys, values=values), ctx, scale=self.scale)

    def _absorbed(self, q: Tensor, cache: Keys, chosen: Tensor | None, ctx: Context) -> Tensor:
        """The same, of queries that meet the latents, all that they see or the chosen ones."""
        z = self.sizes
        to_keys, to_values = self.kv_up.weight.unflatten(0, (self.config.n_heads, -1)).split([z.nope, z.value], 1)
        own, turned = q.split([z.nope, z.rope], -1)
        q = torch.cat([torch.einsum("bthn,hnr->bthr", own, to_keys), turned], -1)
        keys = torch.cat([cache.values, cache.keys[..., : z.rope]], -1)
        if chosen is None:
            o = attend(q, cache._replace(keys=keys), ctx, scale=self.scale)
        else:
            o = indexed.indexed(q, keys[:, :, 0], chosen, value_dim=z.kv, scale=self.scale)
        return torch.einsum("bthr,hvr->bthv", o, to_values)


class Indexer(nn.Module):
    """Which tokens a token attends to. See the file's docstring."""

    def __init__(self, config: Config, d_model: int) -> None:
        super().__init__()
        self.config, self.rotary = config, config.sizes(d_model).rope
        self.rope = None if config.rope is None else replace(config.rope, pairs=config.index_pairs)
        self.q = nn.Linear(config.q_rank or d_model, config.index_heads * config.index_dim, bias=False)
        self.k = nn.Linear(d_model, config.index_dim, bias=False)
        self.k_norm = nn.LayerNorm(config.index_dim, eps=1e-6)
        self.weights = nn.Linear(d_model, config.index_heads, bias=False)

    @torch.no_grad()
    def keys(self, x: Tensor, ctx: Context) -> Tensor:
        """What the cache keeps of x (b, t, d): (b, t, 1, index_dim)."""
        return self._turned(self.k_norm(self.k(x))[:, :, None], ctx)

    @torch.no_grad()
    def forward(self, x: Tensor, u: Tensor, cache: Keys, ctx: Context) -> Tensor:
        """The keys (b, t, index_top_k) int64 of the cache that each token attends to, -1 = none. u (b, t, q_rank or d)."""
        q = self._turned(self.q(u).unflatten(-1, (self.config.index_heads, -1)), ctx)
        k, documents = cache.keys[:, :, 0, self.rotary :], (query_documents(cache, ctx), cache.documents)
        top_k = self.config.index_top_k
        return indexed.select(q, k, self.weights(x), top_k=top_k, q_documents=documents[0], k_documents=documents[1])

    def _turned(self, x: Tensor, ctx: Context) -> Tensor:
        if self.rope is None:
            return x
        return torch.cat([rotate(x[..., : self.rotary], ctx.positions, self.rope), x[..., self.rotary :]], -1)


def _rotated(x: Tensor, after: int, rope: Rope | None, ctx: Context) -> Tensor:
    """x (b, t, h, e) with its channels from `after` on turned by their positions."""
    if rope is None:
        return x
    return torch.cat([x[..., :after], rotate(x[..., after:], ctx.positions, rope)], -1)
