"""Core context aware attention: the far past by one pooled core a group, the near past by its tokens (arXiv:2412.12465).

    q, k, v = W_qkv x (then a short convolution and a norm of q and k, where asked for), q and k turned by RoPE at true positions
    core of a group: alpha = softmax of q_last . k_t / sqrt(e) over its g tokens;  K = sum alpha k_t, V = sum alpha v_t, per query head
    token x sees tokens 0 .. B-1 by their cores and B .. x themselves, B = g max(0, floor((x + 1 - local) / g))
    o = softmax([q . K ; q . k] / sqrt(e)) [V ; v];  y = W_out o

No parameters beyond attention's: a trained attention can be turned into it. A core is made when its group is complete, and seen
once the group has left the local part. A token meets about length / group + local keys, and the state holds as many.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from blocks.base import Cost
from blocks.context import Context
from blocks.errors import one_of, require
from blocks.keys import Keys, append, cache_bytes, query_documents, trim
from blocks.qkv import QKV, Projected
from kernels import core_context


@dataclass(frozen=True, kw_only=True)
class Config(QKV):
    paper: ClassVar[str] = "Core Context Aware Transformers, arXiv:2412.12465"
    restartable: ClassVar[bool] = False  # groups are counted from the document's start

    group: int = 16  # tokens that are pooled into one core
    local: int = 1024  # latest tokens that a token sees one by one (up to group - 1 more), a multiple of group
    pooling: str = "core"  # how a group becomes a core: core (weighted by its last token's query, the paper's) | mean | max

    def check(self, d_model: int) -> None:
        super().check(d_model)
        require(self.group >= 1, "group", self.group, "must be at least 1")
        nearest = f"nearest: {max(self.group, round(self.local / max(self.group, 1)) * self.group)}"
        require(
            self.local >= 1 and self.local % self.group == 0, "local", self.local, f"must be a multiple of group = {self.group}", nearest
        )
        one_of("pooling", self.pooling, core_context.POOLINGS)

    def held(self, length: int) -> int:
        """Tokens whose keys are kept after `length` of them: those that later tokens see one by one."""
        return length - core_context.boundary(length - 1, self.group, self.local)

    def cost(self, d_model: int, length: int) -> Cost:
        h, m, e, groups = self.n_heads, self.kv_heads, self.width(d_model), length // self.group
        pooled = core_context.pool_flops(groups, self.group, heads=h, key=e, value=e, pooling=self.pooling)
        flops, executed = (
            f(length, self.group, self.local, heads=h, key=e, value=e) for f in (core_context.flops, core_context.executed_flops)
        )
        return self.projections_cost(d_model, length) + Cost(
            flops=pooled + flops,
            executed_flops=pooled + executed,
            state_bytes=cache_bytes(self.held(length), m, e, e) + cache_bytes(groups, h, e, e),
        )

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class Cores(NamedTuple):
    """The cores of the current document, in order. b batch, p cores, h query heads."""

    keys: Tensor  # (b, p, h, e), in the dtype of the activations
    values: Tensor  # (b, p, h, e)
    documents: Tensor | None  # (b, p) int64: running count of documents in the row, -1 = leading padding; None = plain


class State(NamedTuple):
    cache: Keys  # the latest tokens: those that later tokens see one by one
    cores: Cores  # of every complete group
    conv: Tensor | None  # (b, conv - 1, c) float32: the last inputs of the convolution; None = without one


class Block(Projected):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__(config, d_model, n_layers)
        self.config = config

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        config = self.config
        q, k, v, conv = self.heads(x, None if state is None else state.conv, ctx)
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
    """Each row's cores that are `alive` at its end, in order, the others before them as padding."""
    order = alive.long().argsort(dim=1, stable=True)
    keys, values = (x.gather(1, order[..., None, None].expand_as(x)) for x in cores[:2])
    documents = torch.where(alive, cores.documents, -1) if cores.documents is not None else None
    return Cores(keys, values, None if documents is None else documents.gather(1, order))
