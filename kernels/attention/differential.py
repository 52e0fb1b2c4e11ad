"""Differential attention piece by piece, with its own backward, which scores every piece again from the log-sums it kept.

With maps P_1, P_2, W = P_1 - mix P_2, dW = do v^T and r_j = rows of sum(P_j dW): dv = W^T do, dmix = -r_2,
ds_1 = P_1 (dW - r_1), ds_2 = -mix P_2 (dW - r_2), and r_1 - mix r_2 = do . o saves one of the sums.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.attention.piece import Piece
from kernels.attention.softmax import Call, weigh, weigh_again
from kernels.dtypes import wide


def differential(q: Tensor, k: Tensor, v: Tensor, mix: Tensor, call: Call) -> Tensor:
    """q (b, t, 2, m, g, e), k (b, s, n, m, e), v (b, s, m, w), mix (b, t, m, g, 1) -> (b, t, m, g, w)."""
    return _Differential.apply(q, k, v, mix, call)


def _scores(piece: Piece, queries: Sequence[Tensor], keys: Sequence[Tensor]) -> list[Tensor]:
    """(p, rows g, keys) of each map, from the queries (pairs, t g, e) of each and the keys (pairs, s, e) of each or of both."""
    return [wide(piece.queries(queries[j]) @ piece.keys(keys[j % len(keys)]).mT) for j in (0, 1)]


class _Differential(torch.autograd.Function):
    """See `differential`."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mix: Tensor, call: Call) -> Tensor:
        queries, keys = [call.queries_in(x) for x in q.unbind(2)], [call.keys_in(x, call.unit) for x in k.unbind(2)]
        v, mix = call.keys_in(v), call.queries_in(mix)
        o, sums = queries[0].new_empty(*mix.shape[:2], v.shape[2]), [torch.empty_like(mix, dtype=wide(q[:0]).dtype) for _ in queries]
        with torch.autocast(q.device.type, enabled=False):
            for piece in call.pieces(mix):
                first, second = (weigh(piece, s, call.view.plain) for s in _scores(piece, queries, keys))
                ratio = first.total / second.total
                less = wide(piece.queries(mix)) * (ratio if call.view.plain else ratio.nan_to_num_())
                p = first.p.addcmul_(second.p, less, value=-1).to(v.dtype)
                piece.divide(o, p @ piece.keys(v), first.total)
                for x, found in zip(sums, (first, second), strict=True):
                    piece.write(x, found.log_sum)
        ctx.save_for_backward(v, mix, o, *sums, *queries, *keys)
        ctx.call = call
        return call.queries_out(o)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
        v, mix, o, *others = ctx.saved_tensors
        sums, queries, keys = others[:2], others[2:4], others[4:]
        call: Call = ctx.call
        do, dmix, dv = call.queries_in(do), torch.empty_like(mix), torch.zeros_like(v)
        dq, dk = [torch.empty_like(x) for x in queries], [torch.zeros_like(x) for x in keys]
        with torch.autocast(do.device.type, enabled=False):
            for piece in call.pieces(mix):
                p, other = (weigh_again(piece, *x) for x in zip(_scores(piece, queries, keys), sums, strict=True))
                share, outputs = wide(piece.queries(mix)), piece.queries(do)
                dw = wide(outputs @ piece.keys(v).mT)
                other_slope = dw * other
                r = other_slope.sum(-1, keepdim=True)
                other_slope.addcmul_(other, r, value=-1)
                piece.write(dmix, -r)
                pull = (wide(outputs) * wide(piece.queries(o))).sum(-1, keepdim=True)
                slope = dw.sub_(pull + share * r).mul_(p)
                piece.add(dv, p.addcmul_(other, share, value=-1).to(v.dtype), outputs)
                for j, ds in enumerate((slope, other_slope.mul_(-share))):
                    n, ds = j % len(keys), ds.to(v.dtype)
                    piece.product(dq[j], ds, piece.keys(keys[n]), call.scale / call.unit)
                    piece.add(dk[n], ds, piece.queries(queries[j]), call.scale)
        d_queries, d_keys = torch.stack([call.queries_out(x) for x in dq], 2), torch.stack([call.keys_out(x) for x in dk], 2)
        return d_queries, d_keys, call.keys_out(dv), call.queries_out(dmix), None
