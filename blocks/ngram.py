"""N-gram head: attention that is fixed by the token ids, to what followed earlier occurrences of the last n tokens (arXiv:2401.12973).

    A_ij = 1 / m_i   if the n tokens before j are the n tokens up to i, for the m_i such j < i;   0 elsewhere
    y = W_0 (A x) + b_0 + W_1 x + b_1            where nothing matches, A x = 0

n = 1 is the attention of an induction head, put in place instead of learnt. Documents do not match across their borders, and an n-gram
that holds a token which the model inserted matches nothing. Tokens are sorted by their n-gram, so that each mean is a running sum:
no matrix of all pairs is made, and nothing but the two projections counts as FLOPs. State: ids and inputs of the document so far,
4 d + 8 bytes a token.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from blocks import base
from blocks.base import Cost
from blocks.context import Context
from blocks.errors import require
from blocks.keys import Keys, append, trim
from blocks.parts import linear_flops, residual_linear
from kernels.linear_scan import linear_scan


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    paper: ClassVar[str] = "N-gram heads, arXiv:2401.12973"
    needs_tokens: ClassVar[bool] = True

    n: int = 1  # n, tokens that must match (the paper puts heads of 1, 2 and 3 one after the other)

    def check(self, d_model: int) -> None:
        require(self.n >= 1, "n", self.n, "must be at least 1")

    def cost(self, d_model: int, length: int) -> Cost:
        linear = linear_flops(length, d_model, 2 * d_model)
        params = 2 * (d_model**2 + d_model)
        return Cost(params=params, flops=linear, executed_flops=linear, state_bytes=length * (4 * d_model + 8))

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, n_layers)


class State(NamedTuple):
    cache: Keys  # keys (b, s, 1, 1) int64: the ids of the current document; values (b, s, 1, d): the inputs there


class Block(nn.Module):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, n_layers: int) -> None:
        super().__init__()
        self.n = config.n
        self.matched = residual_linear(d_model, d_model, n_layers, bias=True)  # W_0
        self.own = residual_linear(d_model, d_model, n_layers, bias=True)  # W_1

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        """Raises ValueError where the context has no token ids."""
        if ctx.tokens is None:
            raise ValueError("n-gram heads read token ids: the context must have `tokens`")
        cache = append(None if state is None else state.cache, ctx.tokens[..., None, None], x[:, :, None], ctx)
        queries = ngrams(cache.keys[:, :, 0, 0], cache.documents, self.n)
        keys = _previous(queries, cache.documents)
        means = means_of_matches(queries[:, -x.shape[1] :], keys, cache.values[:, :, 0])
        return self.matched(means.to(x.dtype)) + self.own(x), State(trim(cache))


def ngrams(tokens: Int[Tensor, "b s"], documents: Int[Tensor, "b s"] | None, n: int) -> Int[Tensor, "b s"]:
    """A number for the n tokens up to each one: the same in a row where document and tokens are the same; -1 where the document has
    not begun yet, or one of them has a negative id."""
    ids = tokens.amax() + 2  # -1 is one
    numbers = tokens if documents is None else _rank(documents) * ids + tokens
    before, whole = tokens, tokens >= 0
    for _ in range(n - 1):
        before = _previous(before, documents)
        numbers, whole = _rank(numbers) * ids + before, whole & (before >= 0)
    return numbers.masked_fill(~whole, -1)


def means_of_matches(queries: Int[Tensor, "b t"], keys: Int[Tensor, "b s"], values: Float[Tensor, "b s d"]) -> Float[Tensor, "b t d"]:
    """For each query, the last t of s tokens, the mean of the values of earlier tokens whose key is the same and not negative; or 0."""
    s, t = keys.shape[1], queries.shape[1]
    index = torch.arange(s, device=keys.device)
    order = keys.argsort(dim=1, stable=True)
    ordered = keys.gather(1, order)
    first = torch.cat([torch.ones_like(ordered[:, :1], dtype=torch.bool), ordered[:, 1:] != ordered[:, :-1]], 1)
    values = values.gather(1, order[..., None].expand_as(values))
    sums, _ = linear_scan(torch.zeros_like(values), values, reset=first)
    counts = index - torch.where(first, index, 0).cummax(1).values + 1
    last = torch.searchsorted(ordered * s + order, queries * s + index[s - t :]) - 1  # of the keys up to the query's, and before it
    matched = (last >= 0) & (queries >= 0)
    last = last.clamp(min=0)
    matched = matched & (ordered.gather(1, last) == queries)
    means = sums.gather(1, last[..., None].expand(-1, -1, sums.shape[-1])) / counts.gather(1, last)[..., None]
    return means * matched[..., None]


def _rank(x: Int[Tensor, "b s"]) -> Int[Tensor, "b s"]:
    """The place of each number among the different ones of its row: small numbers for any."""
    order = x.argsort(dim=1, stable=True)
    ordered = x.gather(1, order)
    new = torch.cat([torch.zeros_like(x[:, :1]), (ordered[:, 1:] != ordered[:, :-1]).long()], 1)
    return torch.zeros_like(x).scatter(1, order, new.cumsum(1))


def _previous(x: Int[Tensor, "b s"], documents: Int[Tensor, "b s"] | None) -> Int[Tensor, "b s"]:
    """The number of the token before; -1 where there is none in the document."""
    before = torch.cat([torch.full_like(x[:, :1], -1), x[:, :-1]], 1)
    if documents is None:
        return before
    last = torch.cat([torch.full_like(documents[:, :1], -1), documents[:, :-1]], 1)
    return before.masked_fill((documents != last) | (documents < 0), -1)
