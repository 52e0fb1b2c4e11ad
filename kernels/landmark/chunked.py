"""The matmul form: tiles of queries against cells of keys, one row of slots a block (see layout.py).

With a_c the main logit of cell c (the landmark's score for an earlier block, the log of the sum of exponentials for the
query's own), P the softmax of a over cells and r the softmax inside each cell, the weight of key j in cell c is P_c r_j: own
block and earlier ones alike. The backward scores each tile again instead of keeping it, so memory stays linear in the length.
With dw_j = do . v_j, d_c = sum_j r_j dw_j and D = sum_c P_c d_c, the gradient of a_c is P_c (d_c - D), and that of a key's
score is P_c r_j (dw_j - d_c), in the own block plus r_j times that of a_c.
Scores are in units of log 2: exp2 is the faster exponential on a CPU and has no slow range.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels.dtypes import wide
from kernels.landmark.layout import Layout, Tile, arrange, tiles

MASKED = -1e30  # the score of what is not seen
DEAD = -1e29  # a maximum below it: nothing is seen


def landmark(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    landmarks: Tensor,
    *,
    documents: Tensor | None = None,
    top_k: int | None = None,
    scale: float | None = None,
) -> Tensor:
    t, m, e = q.shape[1], k.shape[2], k.shape[3]
    scale = e**-0.5 if scale is None else scale
    layout = arrange(landmarks, documents)
    queries = (q * (scale / math.log(2))).unflatten(2, (m, -1)).permute(0, 2, 3, 1, 4)  # (b, m, g, t, e)
    keys, values = (_Cells.apply(x.to(q.dtype), layout.slots, layout.place, layout.real) for x in (k, v))
    o = _Mix.apply(queries.contiguous(), keys, values, layout, tiles(layout, t), top_k)
    return o.permute(0, 3, 1, 2, 4).flatten(2, 3)


def executed_flops(landmarks: Sequence[bool], *, heads: int, key: int, value: int) -> int:
    """What `landmark` spends on one document from its start, landmarks[i] = token i is one: every tile meets every slot of its cells."""
    layout = arrange(torch.tensor([landmarks]), None)
    pairs = sum((tile.stop - tile.start) * (tile.high - tile.low) * layout.width for tile in tiles(layout, len(landmarks)))
    return 2 * heads * (key + value) * pairs


class _Cells(torch.autograd.Function):
    """x (b, s, m, e) -> its slots (b, m, n * c, e). What stands in an empty slot is never used; its gradient is dropped.

    A key has one slot, so the backward is a gather too (index_put's is ten times slower).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slots: Tensor, place: Tensor, real: Tensor) -> Tensor:
        b, s, m, e = x.shape
        ctx.save_for_backward(place, real)
        rows = (torch.arange(b, device=x.device)[:, None] * s + slots.clamp(max=s - 1))[:, None] * m
        index = rows + torch.arange(m, device=x.device)[:, None]  # (b, m, n * c)
        return x.reshape(-1, e).index_select(0, index.flatten()).view(b, m, -1, e)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        place, real = ctx.saved_tensors
        grad = grads[0]
        b, m, n, e = grad.shape
        head = (torch.arange(b, device=grad.device)[:, None] * m + torch.arange(m, device=grad.device))[:, None] * n  # (b, 1, m)
        index = head + place[..., None]  # (b, s, m)
        dx = grad.reshape(-1, e).index_select(0, index.flatten()).view(*index.shape, e)
        return dx * real[..., None, None], None, None, None


class _Scored(NamedTuple):
    """A tile of x = (b, m, g, rows) queries against n cells of c slots."""

    p: Tensor  # (x, n, c): inside weights times their sum; 0 where unseen
    share: Tensor  # (x, n): 1 / that sum, 0 where the cell has nothing to read
    main: Tensor  # (x, n): P
    own: Tensor  # (b, 1, 1, rows, n) bool: the query's own cell


def _score(q: Tensor, keys: Tensor, layout: Layout, tile: Tile, top_k: int | None) -> _Scored:
    """q (b, m, g, rows, e), keys (b, m, n * c, e): those of the tile."""
    c, at = layout.width, slice(tile.key, tile.key + q.shape[-2])
    cells = torch.arange(tile.low, tile.high, device=q.device)
    cell, first = layout.cell[:, at, None], layout.first[:, at, None]
    own = ((cells == cell) & (cell >= 0))[:, None, None]
    past = ((cells < cell) & (cells >= first))[:, None, None]

    s = wide(q.flatten(2, 3) @ keys.mT).view(*q.shape[:-1], -1, c)
    marks = s[..., -1].clone()
    s[..., -1] = MASKED
    slots = layout.slots[:, tile.whole * c : tile.high * c].unflatten(1, (-1, c))[:, None]
    index = torch.arange(at.start, at.stop, device=q.device)[:, None, None]
    s[..., tile.whole - tile.low :, :].masked_fill_((slots > index)[:, None, None], MASKED)

    top = s.amax(-1)
    p = s.sub_(top[..., None]).exp2_()
    total = p.sum(-1)
    share = (top > DEAD) / total
    if top_k is not None:
        past = _best(marks.masked_fill(~past, MASKED), top_k) & past
    logits = torch.where(own, top + total.log2(), marks).masked_fill(~(own | past), MASKED)
    peak = logits.amax(-1, keepdim=True)
    main = (logits - peak).exp2_()
    main = main * ((peak > DEAD) / main.sum(-1, keepdim=True))
    return _Scored(p, share, main, own)


def _best(scores: Tensor, top_k: int) -> Tensor:
    """The top_k largest along the last dimension, of equal ones the first: bool."""
    order = scores.sort(descending=True, stable=True).indices[..., :top_k]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, True)


class _Mix(torch.autograd.Function):
    """queries (b, m, g, t, e), keys (b, m, n * c, e), values (b, m, n * c, f) -> (b, m, g, t, f)."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, layout: Layout, plan: list[Tile], top_k: int | None) -> Tensor:
        ctx.save_for_backward(queries, keys, values)
        ctx.layout, ctx.plan, ctx.top_k = layout, plan, top_k
        out = []
        for tile in plan:
            q, span = queries[..., tile.start : tile.stop, :], slice(tile.low * layout.width, tile.high * layout.width)
            scored = _score(q, keys[:, :, span], layout, tile, top_k)
            weights = scored.p.mul_((scored.main * scored.share)[..., None]).view(*q.shape[:2], -1, span.stop - span.start)
            out.append((weights.to(values.dtype) @ values[:, :, span]).view(*q.shape[:-1], -1))
        return torch.cat(out, -2).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        queries, keys, values = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(queries), torch.zeros_like(keys), torch.zeros_like(values)
        for tile in ctx.plan:
            rows, span = slice(tile.start, tile.stop), slice(tile.low * ctx.layout.width, tile.high * ctx.layout.width)
            q, k, v, do = queries[..., rows, :], keys[:, :, span], values[:, :, span], grads[0][..., rows, :].flatten(2, 3)
            scored = _score(q, k, ctx.layout, tile, ctx.top_k)
            ds, weights = _tile_gradient(scored, wide(do @ v.mT))
            ds, weights = ds.to(q.dtype), weights.to(q.dtype)
            dq[..., rows, :] = (ds @ k).view_as(q)
            dk[:, :, span] += ds.mT @ q.flatten(2, 3)
            dv[:, :, span] += weights.mT @ do
        return dq * math.log(2), dk * math.log(2), dv, None, None, None


def _tile_gradient(scored: _Scored, dw: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the scores, and the weights, both (b, m, g * rows, n * c), from dw = do v^T of that shape."""
    p, share, main, own = scored
    inside = p.mul_(share[..., None])
    pull = dw.view_as(p).mul_(inside)  # r dw
    d = pull.sum(-1)
    dmain = main * (d - (main * d).sum(-1, keepdim=True))
    ds = pull.mul_(main[..., None]).addcmul_(inside, (torch.where(own, dmain, 0) - main * d)[..., None])
    ds[..., -1] = dmain.masked_fill(own, 0)
    weights = inside.mul_(main[..., None])
    return ds.view_as(dw), weights.view_as(dw)
