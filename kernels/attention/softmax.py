"""Softmax attention piece by piece, with its own backward, which scores every piece again from the log-sum it kept.

Scores are in units of log 2, because exp2 has no slow range on a CPU. With P = exp2(s - log-sum) and D_i = do_i . o_i:
dv = P^T do, ds = P (do v^T - D), dq = ds k, dk = ds^T q. A learned sink logit z is one more score without a value: all
weights of a row shrink by sigmoid(log-sum - z).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.attention import flash
from kernels.attention.mask import UNSEEN
from kernels.attention.piece import Known, Piece, pieces
from kernels.attention.tiles import Tile
from kernels.attention.visible import Sight
from kernels.dtypes import LOG2E, wide

DEAD = UNSEEN / 2  # a maximum below it: nothing is seen


class Call(NamedTuple):
    """What of a call is no tensor with a gradient."""

    view: Sight
    plan: list[Tile]
    scale: float
    softcap: float | None
    heads: int  # key heads
    groups: int  # query heads a key head
    known: Known  # the masks met so far

    @property
    def unit(self) -> float:
        """What keys are multiplied by before they meet queries."""
        return self.scale * LOG2E if self.softcap is None else self.scale / self.softcap

    def pieces(self, q: Tensor) -> Iterator[Piece]:
        """Those for queries (pairs, t g, e)."""
        return pieces(self.view, self.plan, q.shape[0] // self.heads, self.heads, self.groups, q.device, self.known)

    def queries_in(self, x: Tensor) -> Tensor:
        """x (b, t, m, g, e) -> (pairs, t g, e) in memory."""
        return x.transpose(1, 2).reshape(-1, self.view.t * self.groups, x.shape[4]).contiguous()

    def queries_out(self, x: Tensor) -> Tensor:
        """Back: x (pairs, t g, e) -> (b, t, m, g, e), a view."""
        return x.view(-1, self.heads, self.view.t, self.groups, x.shape[2]).transpose(1, 2)

    def keys_in(self, x: Tensor, factor: float = 1.0) -> Tensor:
        """factor x (b, s, m, e) -> (pairs, s, e) in memory, so that a slice of time is a matrix of some pairs without another copy."""
        x = x.transpose(1, 2)
        return torch.mul(x, factor, out=torch.empty(x.shape, dtype=x.dtype, device=x.device)).flatten(0, 1)

    def keys_out(self, x: Tensor) -> Tensor:
        """Back: x (pairs, s, e) -> (b, s, m, e), a view."""
        return x.unflatten(0, (-1, self.heads)).transpose(1, 2)


def softmax(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, call: Call) -> Tensor:
    """q (b, t, m, g, e), k (b, s, m, e), v (b, s, m, w), sinks (m, g) or None -> (b, t, m, g, w)."""
    return _Softmax.apply(q, k, v, sinks, call)


class Weighed(NamedTuple):
    """Rows of weights that don't sum to 1 yet."""

    p: Tensor  # (p, rows g, keys)
    total: Tensor  # (p, rows g, 1), their sum, inf where a row sees nothing
    log_sum: Tensor  # (p, rows g, 1), of the scores


def weigh(piece: Piece, s: Tensor, plain: bool) -> Weighed:
    """From scores (p, rows g, keys), which are changed; plain: every row sees something."""
    top = piece.hide(s).amax(-1, keepdim=True)
    p = s.sub_(top).exp2_()
    total = p.sum(-1, keepdim=True)
    if not plain:
        total.masked_fill_(top < DEAD, torch.inf)
    return Weighed(p, total, top.add_(total.log2()))


def weigh_again(piece: Piece, s: Tensor, log_sums: Tensor) -> Tensor:
    """Scores, changed -> weights of sum 1, or 0."""
    return piece.hide(s).sub_(piece.queries(log_sums)).exp2_()


class _Softmax(torch.autograd.Function):
    """See `softmax`."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, call: Call) -> Tensor:
        with torch.autocast(q.device.type, enabled=False):
            if call.softcap is None and flash.serves(q, v, call.view):
                o, found = flash.flash(q, k, v, call.view, call.plan, call.scale)
                log_sums = call.queries_in(found).mul_(LOG2E)
            else:
                o, log_sums = _forward(q, k, v, call)
        if sinks is not None:
            logits = _sink_scores(sinks, call, q.shape[0])
            o *= call.queries_out(torch.sigmoid((log_sums - logits) / LOG2E))
            log_sums = torch.logaddexp2(log_sums, logits)
        o = o.to(q.dtype)
        ctx.save_for_backward(q, k, v, sinks, o, log_sums)
        ctx.call = call
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, sinks, o, log_sums = ctx.saved_tensors
        call: Call = ctx.call
        pull = call.queries_in((wide(do) * wide(o)).sum(-1, keepdim=True))
        with torch.autocast(q.device.type, enabled=False):
            dq, dk, dv = _backward(q, k, v, do, log_sums, pull, call)
        dsinks = None
        if sinks is not None:
            pulled = torch.exp2(_sink_scores(sinks, call, q.shape[0]) - log_sums).mul_(pull)
            dsinks = -call.queries_out(pulled).sum((0, 1, 4)).to(sinks.dtype)
        return dq, dk, dv, dsinks, None


def _forward(q: Tensor, k: Tensor, v: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    """o (b, t, m, g, w) at least in float32, and the log-sums (pairs, t g, 1)."""
    q, k, v = call.queries_in(q), call.keys_in(k, call.unit), call.keys_in(v)
    o, log_sums = (wide(q[:0]).new_empty(*q.shape[:2], width) for width in (v.shape[2], 1))
    for piece in call.pieces(q):
        s = wide(piece.queries(q) @ piece.keys(k).mT)
        found = weigh(piece, s if call.softcap is None else s.tanh_().mul_(call.softcap * LOG2E), call.view.plain)
        piece.divide(o, found.p.to(v.dtype) @ piece.keys(v), found.total)
        piece.write(log_sums, found.log_sum)
    return call.queries_out(o), log_sums


def _backward(q: Tensor, k: Tensor, v: Tensor, do: Tensor, log_sums: Tensor, pull: Tensor, call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v; log_sums and pull, D, (pairs, t g, 1)."""
    q, k, v, do = call.queries_in(q), call.keys_in(k, call.unit), call.keys_in(v), call.queries_in(do)
    dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for piece in call.pieces(q):
        queries, keys, outputs = piece.queries(q), piece.keys(k), piece.queries(do)
        s, slope = wide(queries @ keys.mT), None
        if call.softcap is not None:
            slope = 1 - s.tanh_().square()
            s.mul_(call.softcap * LOG2E)
        p = weigh_again(piece, s, log_sums)
        piece.add(dv, p.to(q.dtype), outputs)
        ds = wide(outputs @ piece.keys(v).mT).sub_(piece.queries(pull)).mul_(p)
        ds = (ds if slope is None else ds.mul_(slope)).to(q.dtype)
        piece.product(dq, ds, keys, call.scale / call.unit)
        piece.add(dk, ds, queries, call.scale)
    return call.queries_out(dq), call.keys_out(dk), call.keys_out(dv)


def _sink_scores(sinks: Tensor, call: Call, batch: int) -> Tensor:
    """sinks (m, g), one for each query: (pairs, t g, 1)."""
    return (wide(sinks) * LOG2E).repeat(batch, call.view.t)[..., None]
