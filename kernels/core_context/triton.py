"""Our Triton kernels: tiles of queries against the cores before them and a band of keys; only the log-sum is kept for the backward."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from kernels.chips import CHIPS, Chip, Tiles, Variant, family, options, padded
from kernels.core_context import programs
from kernels.core_context.settings import WIDEST, tiles
from kernels.core_context.sight import Sight
from kernels.gpu import lacks_gpu, unknown_dtype

HEADS = (8, 2)  # query and key heads that are compiled ahead of time
PROGRAMS = ("forward", "query_gradients", "key_gradients")
BYTES = {"bf16": 2, "fp32": 4}  # of the dtypes that are compiled ahead of time; fp16 is as bf16


def core_context(q: Tensor, k: Tensor, v: Tensor, cores_k: Tensor, cores_v: Tensor, view: Sight, *, scale: float | None) -> Tensor:
    sources = [x.to(q.dtype).contiguous() for x in (q, k, v, cores_k, cores_v)]
    table = torch.stack(list(view)).int()
    return _CoreContext.apply(*sources, table, q.shape[-1] ** -0.5 if scale is None else scale)


def refuses_core_context(
    q: Tensor, k: Tensor, v: Tensor, cores_k: Tensor, cores_v: Tensor, view: Sight, *, scale: float | None
) -> str | None:
    """Why this call can't be served here; None if it can."""
    tensors = (q, k, v, cores_k, cores_v)
    why = lacks_gpu(q) or unknown_dtype("it", *tensors)
    if why is None and max(q.shape[3], v.shape[3]) > WIDEST[q.element_size()]:
        why = f"heads of {q.shape[3]} and {v.shape[3]} channels: at most {WIDEST[q.element_size()]} of {q.dtype}"
    if why is None and max(x[0].numel() for x in tensors) >= 2**31:
        why = "a row of 2^31 elements or more"
    return why


def constants(h: int, m: int, e: int, f: int, at: Tiles) -> dict[str, Any]:
    """The constants of a program for h query heads and m key heads of e and f channels."""
    sizes = {"H": h, "M": m, "E": e, "F": f, "EP": padded(e), "FP": padded(f), "BM": at.rows, "BN": at.keys}
    return {**sizes, "PRECISION": "ieee"}


def _constants(program: str, q: Tensor, v: Tensor) -> dict[str, Any]:
    h, m, e, f = q.shape[2], v.shape[2], q.shape[3], v.shape[3]
    chip = family(q)
    at = tiles(chip, program, max(padded(e), padded(f)), q.element_size())
    return constants(h, m, e, f, at) | options(chip, at)


def _spans(low: Tensor, high: Tensor, keys: int, tile: int) -> tuple[Tensor, Tensor]:
    """For each tile of keys the first query that sees one of them, and one past the last: (b, tiles) int32. The intervals low:high
    (b, t) of the queries don't decrease, at either end."""
    starts = torch.arange(0, keys, tile, device=low.device, dtype=low.dtype).expand(low.shape[0], -1).contiguous()
    begins = torch.searchsorted(high.contiguous(), starts, right=True, out_int32=True)
    return begins, torch.searchsorted(low.contiguous(), starts + (tile - 1), right=True, out_int32=True)


class _CoreContext(torch.autograd.Function):
    """q (b, t, h, e), k (b, s, m, e), v (b, s, m, f), cores (b, p, h, e or f), table (4, b, t) int32 -> (b, t, h, f), all contiguous."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, cores_k: Tensor, cores_v: Tensor, table: Tensor, scale: float) -> Tensor:
        b, t, h, _ = q.shape
        o, sums = q.new_empty(b, t, h, v.shape[-1]), q.new_empty(b, h, t, dtype=torch.float32)
        fixed, sizes = _constants("forward", q, v), (scale, t, k.shape[1], cores_k.shape[1])
        with torch.cuda.device_of(q):
            programs.forward[(-(-t // fixed["BM"]), b * h)](q, k, v, cores_k, cores_v, o, sums, *table, *sizes, **fixed)
        ctx.save_for_backward(q, k, v, cores_k, cores_v, o, sums, table)
        ctx.scale = scale
        return o

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, cores_k, cores_v, o, sums, table = ctx.saved_tensors
        (b, t, h, _), do, dq, pulls = q.shape, grads[0].contiguous(), torch.empty_like(q), torch.empty_like(sums)
        fixed, sizes = _constants("query_gradients", q, v), (ctx.scale, t, k.shape[1], cores_k.shape[1])
        with torch.cuda.device_of(q):
            given = (q, k, v, cores_k, cores_v, o, do, dq, sums, pulls, *table, *sizes)
            programs.query_gradients[(-(-t // fixed["BM"]), b * h)](*given, **fixed)
            far = _key_gradients(q, cores_k, cores_v, do, sums, pulls, table[0], table[1], ctx.scale)
            near = _key_gradients(q, k, v, do, sums, pulls, table[2], table[3], ctx.scale)
        return dq, *near, *far, None, None


def _key_gradients(
    q: Tensor, k: Tensor, v: Tensor, do: Tensor, sums: Tensor, pulls: Tensor, low: Tensor, high: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Of keys and values, or of cores, which queries see by the intervals low:high."""
    dk, dv, fixed = torch.empty_like(k), torch.empty_like(v), _constants("key_gradients", q, v)
    b, s, m, _ = k.shape
    if s:
        spans = _spans(low, high, s, fixed["BN"])
        given = (q, k, v, do, dk, dv, sums, pulls, low, high, *spans, scale, q.shape[1], s)
        programs.key_gradients[(spans[0].shape[1], b * m)](*given, **fixed)
    return dk, dv


def variants() -> list[Variant]:
    """What is compiled ahead of time (kernels/ahead.py): heads of 64 and 128."""
    choices = product(CHIPS, PROGRAMS, (64, 128), BYTES)
    return [_variant(*choice) for choice in choices if choice[2] <= WIDEST[BYTES[choice[3]]]]


def _variant(chip: Chip, program: str, width: int, dtype: str) -> Variant:
    at, function = tiles(chip.name, program, width, BYTES[dtype]), getattr(programs, program)
    fixed = constants(*HEADS, width, width, at)
    signature = _signature(function.arg_names, dtype)
    aligned = tuple(key for key, kind in signature.items() if kind.startswith("*"))
    common = dtype == "bf16" and width == 64
    return Variant(f"{program} {width} {dtype}", function, signature, fixed, options(chip.name, at), aligned, (chip.name,), common)


def _signature(names: Sequence[str], dtype: str) -> dict[str, str]:
    """The types of a program's arguments."""
    tensors = ("q", "k", "v", "cores_k", "cores_v", "o", "do", "dq", "dk", "dv")
    kinds = dict.fromkeys(tensors, f"*{dtype}") | dict.fromkeys(("sums", "pulls"), "*fp32")
    kinds |= dict.fromkeys(("t", "s", "p"), "i32") | {"scale": "fp32"}
    return {name: kinds.get(name, "*i32") for name in names if name.islower() or name in kinds}
