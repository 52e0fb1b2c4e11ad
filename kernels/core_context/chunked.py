"""The matmul form: tiles of queries against the cores before them and a band of keys.

The backward scores each tile again from the log-sum it kept, so memory stays linear in the length. Scores are in units of
log 2: exp2 is the faster exponential on a CPU and has no slow range.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels.core_context.sight import Sight, sight
from kernels.dtypes import wide

TILE = 64  # queries scored at a time
MASKED = -1e30  # the score of what is not seen
DEAD = -1e29  # a maximum below it: nothing is seen


class Span(NamedTuple):
    """Queries start:stop, the keys low:high and the cores first:last that hold all they see."""

    start: int
    stop: int
    low: int
    high: int
    first: int
    last: int


def core_context(q: Tensor, k: Tensor, v: Tensor, cores_k: Tensor, cores_v: Tensor, view: Sight, *, scale: float | None) -> Tensor:
    b, t, h, e = q.shape
    factor = (e**-0.5 if scale is None else scale) / math.log(2)
    queries = (q * factor).unflatten(2, (k.shape[2], -1)).permute(0, 2, 3, 1, 4).contiguous()  # (b, m, g, t, e)
    sources = [x.to(q.dtype).transpose(1, 2).contiguous() for x in (k, v, cores_k, cores_v)]  # (b, m or h, s or p, e or f)
    o = _Attend.apply(queries, *sources, view, spans(view))
    return o.permute(0, 3, 1, 2, 4).reshape(b, t, h, -1)


def spans(view: Sight) -> list[Span]:
    """The tiles of a call."""
    t = view.high.shape[1]
    starts = range(0, t, TILE)
    blind = view.first >= view.stop  # no cores: they widen no tile
    bounds = (view.low, -view.high, view.first.masked_fill(blind, torch.iinfo(torch.int64).max), -view.stop.masked_fill(blind, 0))
    edges = torch.stack([torch.stack([x[:, a : a + TILE].amin() for a in starts]) for x in bounds], 1).tolist()
    return [
        Span(a, min(a + TILE, t), min(low, -high - 1), -high, min(first, -last), -last)
        for a, (low, high, first, last) in zip(starts, edges, strict=True)
    ]


def executed_flops(length: int, group: int, local: int, *, heads: int, key: int, value: int) -> int:
    """What `core_context` spends on one document of `length` tokens from its start."""
    view = sight(torch.arange(length)[None], group, local, None, None, length)
    pairs = sum((s.stop - s.start) * (s.high - s.low + s.last - s.first) for s in spans(view))
    return 2 * heads * (key + value) * pairs


class _Part(NamedTuple):
    """What a tile looks at: its band of keys, or its cores. n heads: m with the g queries' heads as rows, or h."""

    keys: Tensor  # (b, n, j, e)
    values: Tensor  # (b, n, j, f)
    seen: Tensor  # (b, 1, 1, rows, j) bool

    def rows(self, x: Tensor) -> Tensor:
        """(b, m, g, rows, ...) as the rows that meet these keys."""
        return x.reshape(x.shape[0], self.keys.shape[1], -1, x.shape[-1])

    def scores(self, q: Tensor) -> Tensor:
        """(b, m, g, rows, j)"""
        s = wide(self.rows(q) @ self.keys.mT).view(*q.shape[:-1], -1)
        return s.masked_fill_(~self.seen, MASKED)


def _parts(span: Span, view: Sight, k: Tensor, v: Tensor, cores_k: Tensor, cores_v: Tensor) -> list[_Part]:
    near, far, rows = slice(span.low, span.high), slice(span.first, span.last), slice(span.start, span.stop)
    found = [_Part(k[:, :, near], v[:, :, near], _between(view.low[:, rows], view.high[:, rows], near))]
    if span.last > span.first:
        found.append(_Part(cores_k[:, :, far], cores_v[:, :, far], _between(view.first[:, rows], view.stop[:, rows], far)))
    return found


def _between(low: Tensor, high: Tensor, among: slice) -> Tensor:
    index = torch.arange(among.start, among.stop, device=low.device)
    return ((index >= low[..., None]) & (index < high[..., None]))[:, None, None]


class _Attend(torch.autograd.Function):
    """queries (b, m, g, t, e), keys and cores as sources of `core_context` -> (b, m, g, t, f)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, cores_k: Tensor, cores_v: Tensor, view: Sight, plan: list[Span]) -> Tensor:
        out, sums = [], []
        for span in plan:
            parts = _parts(span, view, k, v, cores_k, cores_v)
            scores = [part.scores(q[..., span.start : span.stop, :]) for part in parts]
            top = torch.stack([s.amax(-1, keepdim=True) for s in scores]).amax(0)
            weights = [s.sub_(top).exp2_() for s in scores]
            total = torch.stack([p.sum(-1, keepdim=True) for p in weights]).sum(0)
            mixed = [wide(part.rows(p.to(v.dtype)) @ part.values).view(*top.shape[:-1], -1) for part, p in zip(parts, weights, strict=True)]
            out.append((sum(mixed[1:], mixed[0]) * ((top > DEAD) / total)).to(v.dtype))
            sums.append(torch.where(top > DEAD, top + total.log2(), -MASKED))
        o = torch.cat(out, -2)
        ctx.save_for_backward(q, k, v, cores_k, cores_v, o, torch.cat(sums, -2))
        ctx.view, ctx.plan = view, plan
        return o

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, cores_k, cores_v, o, sums = ctx.saved_tensors
        dq, sources = torch.zeros_like(q), (k, v, cores_k, cores_v)
        dk, dv, dcores_k, dcores_v = (torch.zeros_like(x) for x in sources)
        pull = (wide(grads[0]) * wide(o)).sum(-1, keepdim=True)
        for span in ctx.plan:
            rows = slice(span.start, span.stop)
            tile = [x[..., rows, :] for x in (q, grads[0], sums, pull)]
            targets = ((dk, dv, slice(span.low, span.high)), (dcores_k, dcores_v, slice(span.first, span.last)))
            for part, (to_keys, to_values, among) in zip(_parts(span, ctx.view, *sources), targets, strict=False):
                queries, keys, values = _part_gradients(part, *tile)
                dq[..., rows, :] += queries
                to_keys[:, :, among] += keys
                to_values[:, :, among] += values
        return dq * math.log(2), dk * math.log(2), dv, dcores_k * math.log(2), dcores_v, None, None


def _part_gradients(part: _Part, q: Tensor, do: Tensor, sums: Tensor, pull: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The shares of one part in the gradients of a tile's queries, and of the part's keys and values."""
    p = part.scores(q).sub_(sums).exp2_()
    queries, outputs = part.rows(q), part.rows(do)
    ds = part.rows(wide(outputs @ part.values.mT).view_as(p).sub_(pull).mul_(p).to(q.dtype))
    weights = part.rows(p.to(q.dtype))
    return (ds @ part.keys).view_as(q), ds.mT @ queries, weights.mT @ outputs
