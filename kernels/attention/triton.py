"""Our Triton kernels: softmax and differential attention without a matrix of scores, under every mask of the rule of visibility.

Tiles of queries meet only blocks of keys that one of them sees; the backward pass computes the scores again from the log-sum of each
softmax (FlashAttention-2, arXiv:2307.08691). Documents, windows and sinks come as intervals of keys (intervals.py).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from kernels.attention import programs
from kernels.attention.intervals import Intervals, intervals
from kernels.attention.settings import WIDEST, constants, tiles, variants
from kernels.attention.visible import Sight
from kernels.chips import family, padded
from kernels.dtypes import LOG2E, wide
from kernels.gpu import lacks_gpu, unknown_dtype

__all__ = ["attention", "differential", "refuses_attention", "refuses_differential", "variants"]


def attention(
    q: Tensor, k: Tensor, v: Tensor, view: Sight, *, softcap: float | None, sink_logits: Tensor | None, scale: float | None
) -> Tensor:
    return _Attention.apply(q[:, :, None], k[:, :, None], v, None, sink_logits, _call(q, view, scale, softcap))


def differential(q: Tensor, k: Tensor, v: Tensor, mix: Tensor, view: Sight, *, scale: float | None) -> Tensor:
    return _Attention.apply(q, k, v, mix, None, _call(q, view, scale, None))


def refuses_attention(
    q: Tensor, k: Tensor, v: Tensor, view: Sight, *, softcap: float | None, sink_logits: Tensor | None, scale: float | None
) -> str | None:
    """Why this call can't be served here; None if it can."""
    del view, softcap, sink_logits, scale
    return _refuses(q, k, v)


def refuses_differential(q: Tensor, k: Tensor, v: Tensor, mix: Tensor, view: Sight, *, scale: float | None) -> str | None:
    """Why this call can't be served here; None if it can."""
    del view, scale
    return _refuses(q, k, v) or unknown_dtype("Triton's back end", mix)


def _refuses(q: Tensor, k: Tensor, v: Tensor) -> str | None:
    if not q.dtype == k.dtype == v.dtype:
        return f"queries, keys and values of dtypes {q.dtype}, {k.dtype} and {v.dtype}: they must share one"
    if max(q.shape[-1], v.shape[-1]) > WIDEST:
        return f"heads of {q.shape[-1]} and {v.shape[-1]} channels: at most {WIDEST}"
    return lacks_gpu(q) or unknown_dtype("Triton's back end", q)


@dataclass(frozen=True)
class _Call:
    """What a call says beside its tensors."""

    view: Sight
    tables: Intervals | None
    scale: float
    softcap: float | None

    @property
    def scores(self) -> tuple[float, float]:
        """scale and cap of the programs: scale q k or cap tanh(scale q k) is the score in units of log 2."""
        if self.softcap is None:
            return self.scale * LOG2E, 1.0
        return self.scale / self.softcap, self.softcap * LOG2E

    def sizes(self, q: Tensor, k: Tensor) -> tuple[int, ...]:
        """window, sink_tokens, t, s, H, M"""
        view = self.view
        return min(view.window or view.s, view.s), view.sink_tokens, view.t, view.s, q.shape[3], k.shape[3]

    def constants(self, program: str, q: Tensor, k: Tensor, v: Tensor) -> dict[str, Any]:
        maps, e, w = q.shape[2], q.shape[4], v.shape[3]
        chosen = tiles(family(q), program, max(padded(e), padded(w)), q.element_size(), maps)
        options = {"num_warps": chosen.warps, "num_stages": chosen.stages}
        sinks, softcap = self.view.sink_tokens > 0, self.softcap is not None
        return constants(e, w, maps, k.shape[2], sinks=sinks, softcap=softcap, chosen=chosen) | options


def _call(q: Tensor, view: Sight, scale: float | None, softcap: float | None) -> _Call:
    return _Call(view, intervals(view), q.shape[-1] ** -0.5 if scale is None else scale, softcap)


class _Attention(Function):
    """q (b, t, maps, h, e), k (b, s, sets, m, e), v (b, s, m, w), mix (b, t, h) or None, sink_logits (h) or None -> (b, t, h, w)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mix: Tensor | None, sink_logits: Tensor | None, call: _Call) -> Tensor:
        q, k, v = (x.contiguous() for x in (q, k, v))
        mix = None if mix is None else mix.contiguous()
        (b, t, maps, h, _), w = q.shape, v.shape[3]
        o, sums = q.new_empty(b, t, h, w), q.new_empty(b, h, maps, t, dtype=torch.float32)
        second = torch.empty_like(o) if maps == 2 and any(ctx.needs_input_grad) else None
        sinks = None if sink_logits is None else (wide(sink_logits) * LOG2E).float().contiguous()
        table = None if call.tables is None else call.tables.queries
        fixed = call.constants("forward", q, k, v)
        with torch.cuda.device_of(q):
            given = (q, k, v, mix, sinks, table, o, second, sums, *call.scores, *call.sizes(q, k))
            programs.forward[(-(-t // fixed["BM"]) * b * h,)](*given, **fixed)
        ctx.save_for_backward(q, k, v, mix, sinks, o, second, sums)
        ctx.call, ctx.sinks_dtype = call, None if sink_logits is None else sink_logits.dtype
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mix, sinks, o, second, sums = ctx.saved_tensors
        call, do = ctx.call, grads[0].contiguous()
        table, reach = (None, None) if call.tables is None else call.tables
        dq, dk, dv, pulls = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), torch.empty_like(sums)
        dmix = None if mix is None else torch.empty_like(mix)
        (factor, cap), sizes = call.scores, call.sizes(q, k)
        (b, t, _, h, _), (s, m) = q.shape, k.shape[1:4:2]
        with torch.cuda.device_of(q):
            fixed = call.constants("query_gradients", q, k, v)
            given = (q, k, v, mix, table, o, second, do, sums, pulls, dq, dmix, factor, call.scale, cap, *sizes)
            programs.query_gradients[(-(-t // fixed["BM"]) * b * h,)](*given, **fixed)
            fixed = call.constants("key_gradients", q, k, v)
            given = (q, k, v, mix, table, reach, do, sums, pulls, dk, dv, factor, call.scale, cap, *sizes)
            programs.key_gradients[(-(-s // fixed["BN"]) * b * m,)](*given, **fixed)
        dsinks = None
        if sinks is not None:
            dsinks = -(torch.exp2(sinks[:, None, None] - sums) * pulls).sum((0, 2, 3)).to(ctx.sinks_dtype)
        return dq, dk, dv, dmix, dsinks, None
