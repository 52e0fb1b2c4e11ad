"""Meta attention: only inserted meta tokens attend, to themselves and to those before them (Learned meta-tokens, arXiv:2509.16278).

    o_i = sum_j softmax_j(q_i k_j / sqrt(head_dim)) v_j     over the meta tokens j <= i of i's document
    y_i = W_o o_i  where i is a meta token,  y_i = 0  elsewhere (the residual stream passes unchanged)

Only meta tokens are projected, attended and remembered, so the cost counts them alone: a text without any costs nothing.
It stands beside ordinary attention in the pattern and needs a token plan that inserts meta tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from blocks import base
from blocks.base import Cost
from blocks.context import META, Context
from blocks.keys import Keys, append, attend, cache_bytes, trim
from blocks.parts import check_heads, linear_flops, residual_linear
from blocks.rope import Rope, rotate
from kernels import attention


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    paper: ClassVar[str] = "Learned meta-tokens, arXiv:2509.16278"
    needs_kinds: ClassVar[tuple[int, ...]] = (META,)

    n_heads: int = 4  # heads of queries, keys and values
    head_dim: int | None = None  # channels of a head; null: d_model / n_heads
    rope: Rope | None = None  # rotary positions of queries and keys; null: no positions, which the paper found best at meta tokens
    bias: bool = False  # biases in all projections

    def check(self, d_model: int) -> None:
        check_heads(self.n_heads, self.n_heads, self.head_dim, d_model)
        if self.rope is not None:
            self.rope.check(self.width(d_model))

    def width(self, d_model: int) -> int:
        """The width of a head."""
        return d_model // self.n_heads if self.head_dim is None else self.head_dim

    def cost(self, d_model: int, length: int) -> Cost:
        """Of `length` tokens of text: parameters and nothing else."""
        return self._cost(d_model, 0)

    def cost_of_kinds(self, d_model: int, kinds: Sequence[int]) -> Cost:
        return self._cost(d_model, sum(kind == META for kind in kinds))

    def _cost(self, d_model: int, metas: int) -> Cost:
        h, e = self.n_heads, self.width(d_model)
        linear = linear_flops(metas, d_model, 4 * h * e)
        return Cost(
            params=4 * d_model * h * e + self.bias * (3 * h * e + d_model),
            flops=linear + attention.flops(metas, h, e, e),
            executed_flops=linear + attention.executed_flops(metas, h, e, e, packed=True),
            state_bytes=cache_bytes(metas, h, e, e) + 16 * metas,
        )

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    """The meta tokens read so far; None until the first one."""

    cache: Keys | None  # keys and values (b, s, n_heads, head_dim), rows of fewer meta tokens padded; positions, documents (b, s)


class Block(nn.Module):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        self.config = config
        inner = config.n_heads * config.width(d_model)
        self.qkv = nn.Linear(d_model, 3 * inner, bias=config.bias)
        self.out = residual_linear(inner, d_model, n_layers, bias=config.bias)

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        past = None if state is None else state.cache
        order, metas = _gather(ctx)
        if metas is None:
            return torch.zeros_like(x), State(past)
        rows = order[..., None].expand(-1, -1, x.shape[2])
        qkv = self.qkv(x.gather(1, rows)).unflatten(2, (3, self.config.n_heads, -1))
        q, k, v = qkv.unbind(2)
        if self.config.rope is not None:
            q, k = rotate(q, metas.positions, self.config.rope), rotate(k, metas.positions, self.config.rope)
        cache = append(past, k, v, metas)
        y = self.out(attend(q, cache, metas).flatten(2))
        if metas.padding is not None:
            y = y.masked_fill(metas.padding[..., None], 0)
        return torch.zeros_like(x, dtype=y.dtype).scatter(1, rows, y), State(trim(cache))


def _gather(ctx: Context) -> tuple[Tensor, Context | None]:
    """Where each row's meta tokens are (b, n), and their own context, rows of fewer than n padded; None if there is none."""
    b, t = ctx.positions.shape
    order = ctx.positions.new_zeros(b, 0)
    if ctx.kinds is None:
        return order, None
    documents = torch.zeros_like(ctx.positions) if ctx.documents is None else ctx.documents
    chosen = (ctx.kinds == META) & (documents >= 0)
    n = int(chosen.sum(1).max())
    if n == 0:
        return order, None
    order = chosen.long().argsort(dim=1, stable=True)[:, t - n :]
    documents = torch.where(chosen, documents, -1).gather(1, order)
    return order, Context(ctx.positions.gather(1, order), documents, padding=documents < 0)
