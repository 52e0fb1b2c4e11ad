"""Sparse attention that depends on the context: keys of the query's hash bucket, keys that a score has kept (HAX, arXiv:2507.00449).

    q, k, v = W_qkv x                                 optionally silu(conv(.)); no positions
    bucket(u) = the signs of u R                      R: a fixed random matrix a head, the same for queries and keys
    score_j = MLP([k_j, c_j / |c_j|]),   c_j = q_1 + ... + q_j
    see(i) = the last `hashed` keys j <= i with bucket(k_j) = bucket(q_i), and the `selected` keys j <= i of highest score
    a_ij = softmax over see(i) of (q_i k_j / sqrt(e) + log sigmoid(score_j));   y = W_o sum_j a_ij v_j, 0 where nothing is seen

A key is scored once, when it is read, so that what is selected never depends on the future, and a key that has dropped out of the best
never comes back. Ties go to the earlier key. HAX runs it beside Mamba-2 on the same input: `M|S` in a pattern.

The paper trains the score with a ranking loss of its own. Here the score is a factor of the weight of every key that is seen,
which the loss of the model itself trains: keys that help are kept, whichever half they were seen through. Without selection the
factor is left out. There is no centring of queries and keys before they are hashed, and the signs need no normalisation.
State: all keys and values, each with score and bucket, and c.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from blocks import base
from blocks.base import Cost
from blocks.context import Context
from blocks.errors import require
from blocks.keys import Keys, append, query_documents, trim
from blocks.parts import ShortConv, check_heads, linear_flops, mask, residual_linear
from kernels.conv import flops as conv_flops
from kernels.dtypes import wide
from kernels.linear_scan import linear_scan

NOTES = 2  # numbers that are stored with a key: its score, its bucket


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    paper: ClassVar[str] = "HAX, arXiv:2507.00449"

    n_heads: int = 1  # heads, each with a hash of its own; they share the scorer
    head_dim: int | None = None  # channels of a head; null: d_model / n_heads
    hashed: int = 32  # keys of its own bucket that a query sees, the last ones; 0: no hash
    selected: int = 32  # keys that a query sees for their score; 0: no scorer
    bits: int = 8  # bits of a bucket's number, at most 8: it is stored among the activations, exact in bfloat16
    conv: int = 4  # taps of a short causal convolution with a SiLU over q, k and v; 0: no convolution

    def check(self, d_model: int) -> None:
        check_heads(self.n_heads, self.n_heads, self.head_dim, d_model)
        for name in ("hashed", "selected"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "must be 0 (none) or more")
        require(self.hashed + self.selected >= 1, "hashed", self.hashed, "must be above 0, or selected must", "32 and 32 are HAX's")
        require(1 <= self.bits <= 8, "bits", self.bits, "must be 1 to 8")
        require(self.conv >= 0 and self.conv != 1, "conv", self.conv, "must be 0 (none) or at least 2 taps")

    def width(self, d_model: int) -> int:
        """The width of a head."""
        return d_model // self.n_heads if self.head_dim is None else self.head_dim

    def cost(self, d_model: int, length: int) -> Cost:
        """Counts `hashed` and `selected` keys a query (each at most `length`), whether or not so many keys are there."""
        h, e = self.n_heads, self.width(d_model)
        inner, scorer = h * e, (8 * e**2 + 2 * e) * (self.selected > 0)  # weights of the scorer
        places = min(self.hashed, length) + min(self.selected, length)
        flops = linear_flops(length, d_model, 4 * inner) + linear_flops(length * h, 1, scorer + 2 * places * e)
        flops += 2 * linear_flops(length * h, e, self.bits) * (self.hashed > 0)
        return Cost(
            params=4 * d_model * inner + 3 * self.conv * inner + scorer + 4 * e * (self.selected > 0),
            flops=flops + conv_flops(length, 3 * inner, self.conv),
            executed_flops=flops,
            state_bytes=4 * (length * h * (2 * e + NOTES) + inner * (self.selected > 0) + 3 * max(self.conv - 1, 0) * inner),
        )

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, n_layers)


class State(NamedTuple):
    cache: Keys  # keys (b, s, h, e + 2): with score and bucket; values (b, s, h, e)
    queries: Tensor | None  # (b, h e) float32: the sum of the document's queries; None without a scorer
    conv: Tensor | None  # (b, conv - 1, 3 h e) float32: the last inputs of the convolution; None without one


class Block(nn.Module):
    """See the file's docstring."""

    projection: Tensor

    def __init__(self, config: Config, d_model: int, n_layers: int) -> None:
        super().__init__()
        self.config, self.e = config, config.width(d_model)
        inner = config.n_heads * self.e
        self.qkv = nn.Linear(d_model, 3 * inner, bias=False)
        self.conv = ShortConv(3 * inner, config.conv) if config.conv else None
        self.scorer = _scorer(self.e) if config.selected else None
        if config.hashed:
            self.register_buffer("projection", torch.randn(config.n_heads, self.e, config.bits))  # R
        self.out = residual_linear(inner, d_model, n_layers)

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        qkv, conv = self.qkv(x), None
        if self.conv is not None:
            qkv, conv = self.conv(qkv, None if state is None else state.conv, ctx)
        q, k, v = (y.unflatten(-1, (-1, self.e)) for y in qkv.chunk(3, -1))
        scores, queries = self._scores(q, k, None if state is None else state.queries, ctx)
        noted = torch.cat([k, scores[..., None].to(k.dtype), self._buckets(k)[..., None].to(k.dtype)], -1)
        cache = append(None if state is None else state.cache, noted, v, ctx)
        o = self._attend(q, cache, ctx)
        return self.out(o.flatten(2)), State(trim(cache), queries, conv)

    def _scores(
        self, q: Float[Tensor, "b t h e"], k: Float[Tensor, "b t h e"], queries: Tensor | None, ctx: Context
    ) -> tuple[Float[Tensor, "b t h"], Tensor | None]:
        """The score of each key and the sum of the queries so far; without a scorer 0 and None."""
        if self.scorer is None:
            return torch.zeros_like(k[..., 0]), None
        q = mask(q.flatten(2), ctx)
        sums, queries = linear_scan(torch.zeros_like(q), q, queries, reset=ctx.reset)
        seen = F.normalize(sums.unflatten(-1, k.shape[2:]), dim=-1)
        return self.scorer(torch.cat([k, seen.to(k.dtype)], -1))[..., 0], queries

    def _buckets(self, u: Float[Tensor, "b t h e"]) -> Int[Tensor, "b t h"]:
        """The number of the bucket that a query or a key falls into; 0 without a hash."""
        if not self.config.hashed:
            return torch.zeros_like(u[..., 0], dtype=torch.int64)
        with torch.no_grad(), torch.autocast(u.device.type, enabled=False):
            signs = (u.to(self.projection.dtype)[..., None, :] @ self.projection)[..., 0, :] > 0
        return (signs.long() * 2 ** torch.arange(self.config.bits, device=u.device)).sum(-1)

    def _attend(self, q: Float[Tensor, "b t h e"], cache: Keys, ctx: Context) -> Float[Tensor, "b t h e"]:
        k, scores, buckets = (y.transpose(1, 2) for y in cache.keys.split([self.e, 1, 1], -1))  # (b, h, s, ..)
        places, filled = self._see(self._buckets(q), scores[..., 0].detach(), buckets[..., 0].long(), visible(cache, ctx))
        keys, bias, values = (_at(y, places) for y in (k, scores, cache.values.transpose(1, 2)))
        logits = (q.transpose(1, 2)[..., None, :] @ keys.transpose(-1, -2))[..., 0, :] / math.sqrt(self.e)
        if self.scorer is not None:
            logits = logits + F.logsigmoid(bias[..., 0])
        logits = wide(logits)
        weights = logits.masked_fill(~filled, torch.finfo(logits.dtype).min).softmax(-1) * filled
        return (weights.to(values.dtype)[..., None, :] @ values)[..., 0, :].transpose(1, 2)

    def _see(
        self,
        q_buckets: Int[Tensor, "b t h"],
        scores: Float[Tensor, "b h s"],
        k_buckets: Int[Tensor, "b h s"],
        sight: Bool[Tensor, "b t s"],
    ) -> tuple[Int[Tensor, "b h t n"], Bool[Tensor, "b h t n"]]:
        """The keys that each query sees, as places in the cache, and which of the places hold one."""
        sight, s = sight[:, None], k_buckets.shape[-1]
        same = sight & (q_buckets.transpose(1, 2)[..., None] == k_buckets[:, :, None])
        recent = torch.where(same, torch.arange(s, device=same.device), -1).topk(min(self.config.hashed, s)).values
        ranked = wide(scores)[:, :, None].masked_fill(~sight, -torch.inf)
        best = ranked.sort(dim=-1, descending=True, stable=True)
        chosen = best.indices[..., : min(self.config.selected, s)]
        held = (best.values[..., : chosen.shape[-1]] > -torch.inf) & (chosen[..., None] != recent[..., None, :]).all(-1)
        return torch.cat([recent.clamp(min=0), chosen], -1), torch.cat([recent >= 0, held], -1)


def visible(cache: Keys, ctx: Context) -> Bool[Tensor, "b t s"]:
    """Which tokens of the cache the tokens of the piece appended last may see: those of their document that are not after them."""
    b, t = ctx.positions.shape
    index = torch.arange(cache.keys.shape[1], device=cache.keys.device)
    order = (index <= index[len(index) - t :, None]).expand(b, -1, -1)
    documents = query_documents(cache, ctx)
    if documents is None or cache.documents is None:
        return order
    return order & (documents[..., None] == cache.documents[:, None]) & (documents[..., None] >= 0)


def _at(x: Float[Tensor, "b h s w"], places: Int[Tensor, "b h t n"]) -> Float[Tensor, "b h t n w"]:
    """The entries of x at these places, gathered as rows of a table, whose gradient is one index_add."""
    b, h, s, w = x.shape
    table = torch.arange(b * h, device=x.device).view(b, h, 1, 1) * s
    return x.reshape(-1, w).index_select(0, (places + table).flatten()).view(*places.shape, w)


def _scorer(e: int) -> nn.Sequential:
    """[key, direction of the queries so far] -> score. No bias at the end: it would change no ranking and hardly the softmax."""
    return nn.Sequential(nn.Linear(2 * e, 2 * e), nn.ReLU(), nn.Linear(2 * e, 2 * e), nn.ReLU(), nn.Linear(2 * e, 1, bias=False))
