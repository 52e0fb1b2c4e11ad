"""Landmark attention: blocks of text are read through the landmark token that closes each (arXiv:2305.16300).

    q, k, v = W_qkv x (then a short convolution and a norm of q and k, where asked for), q and k turned by RoPE at true positions
    main_j = softmax over the regular keys of the query's own block and the landmarks of the earlier blocks, of q . k_j / sqrt(e)
    in_c,j = softmax over the regular keys of an earlier block c
    o = sum_{j in own block} main_j v_j + sum_{c earlier} main_{landmark of c} sum_{j in c} in_c,j v_j;   y = W_out o

Landmark tokens come from the model's token plan (`tokens: {landmark: {every: 50}}`). With `top_k` each query and head reads only the top_k
earlier blocks whose landmarks score highest: the same weights, and the same outputs where no more blocks than that exist.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from blocks.base import Cost
from blocks.context import LANDMARK, Context
from blocks.errors import require
from blocks.keys import Keys, append, attend, cache_bytes, trim
from blocks.qkv import QKV, Projected
from kernels import attention, landmark


@dataclass(frozen=True, kw_only=True)
class Config(QKV):
    paper: ClassVar[str] = "Landmark Attention, arXiv:2305.16300"
    needs_kinds: ClassVar[tuple[int, ...]] = (LANDMARK,)

    top_k: int | None = None  # earlier blocks that a query and head reads, those of the highest landmarks; null: all, the form to train in

    def check(self, d_model: int) -> None:
        super().check(d_model)
        require(self.top_k is None or self.top_k >= 1, "top_k", self.top_k, "must be at least 1, or null for all blocks")

    def cost(self, d_model: int, length: int) -> Cost:
        """All text: one open block, plain causal attention."""
        h, e = self.n_heads, self.width(d_model)
        flops, executed = attention.flops(length, h, e, e), attention.executed_flops(length, h, e, e)
        return self.projections_cost(d_model, length) + Cost(
            flops=flops, executed_flops=executed, state_bytes=cache_bytes(length, self.kv_heads, e, e)
        )

    def cost_of_kinds(self, d_model: int, kinds: Sequence[int]) -> Cost:
        """With landmarks. Where blocks differ in length and top_k chooses among them, flops count the longest."""
        e, marks = self.width(d_model), [kind == LANDMARK for kind in kinds]
        flops = landmark.flops(marks, heads=self.n_heads, key=e, value=e, top_k=self.top_k)
        executed = landmark.executed_flops(marks, heads=self.n_heads, key=e, value=e)
        held = cache_bytes(len(kinds), self.kv_heads, e, e) + len(kinds)  # a byte a token marks the landmarks
        return self.projections_cost(d_model, len(kinds)) + Cost(flops=flops, executed_flops=executed, state_bytes=held)

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    cache: Keys  # of all tokens of the current document
    landmarks: Tensor | None  # (b, s) bool: which of them are landmarks; None = no plan so far, all text
    conv: Tensor | None  # (b, conv - 1, c) float32: the last inputs of the convolution; None = without one


class Block(Projected):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__(config, d_model, n_layers)
        self.top_k = config.top_k

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        q, k, v, conv = self.heads(x, None if state is None else state.conv, ctx)
        past = None if state is None else state.cache
        cache = append(past, k, v, ctx)
        marks = _append_marks(past, None if state is None else state.landmarks, ctx)
        if marks is None:
            o = attend(q, cache, ctx)
        else:
            o = landmark.landmark(q, cache.keys, cache.values, marks, documents=cache.documents, top_k=self.top_k)
        kept = trim(cache)
        return self.out(o.flatten(2)), State(kept, _trim_marks(marks, cache, kept), conv)


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
