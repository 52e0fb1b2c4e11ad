"""Our Triton kernels: tiles of queries against blocks of keys where they lie, and only the log-sum of the main softmax is kept.

Blocks may be of any lengths. Those of no more keys than a tile are scored once in each program, longer ones twice. With top_k the
blocks are chosen outside, a tile of queries at a time. Memory is linear in the length.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels.chips import CHIPS, Chip, Tiles, Variant, family, options, padded
from kernels.gpu import lacks_gpu, unknown_dtype
from kernels.landmark import programs
from kernels.landmark.cells import Cells, choose, find
from kernels.landmark.settings import WIDEST, tiles

HEADS = (8, 2)  # query and key heads that are compiled ahead of time
PROGRAMS = ("forward", "query_gradients", "key_gradients")
BYTES = {"bf16": 2, "fp32": 4}  # of the dtypes that are compiled ahead of time; fp16 is as bf16


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
    cells = find(landmarks, documents)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q, k, v = (x.to(q.dtype).contiguous() for x in (q, k, v))
    chosen = None if top_k is None or top_k >= cells.start.shape[1] else choose(q, k, cells, top_k, scale)
    return _Landmark.apply(q, k, v, cells, chosen, scale)


def refuses_landmark(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    landmarks: Tensor,
    *,
    documents: Tensor | None = None,
    top_k: int | None = None,
    scale: float | None = None,
) -> str | None:
    """Why this call can't be served here; None if it can."""
    why = lacks_gpu(q) or unknown_dtype("it", q, k, v)
    if why is None and max(q.shape[3], v.shape[3]) > WIDEST[q.element_size()]:
        why = f"heads of {q.shape[3]} and {v.shape[3]} channels: at most {WIDEST[q.element_size()]} of {q.dtype}"
    if why is None and max(x[0].numel() for x in (q, k, v)) >= 2**31:
        why = "a row of 2^31 elements or more"
    return why


class _Call(NamedTuple):
    """What every program of a call is given."""

    cells: Cells
    chosen: Tensor | None
    scale: float

    def tables(self, *names: str) -> list[Tensor]:
        """Tables of the cells, and the chosen ones (any tensor stands in where all are read)."""
        found = [getattr(self.cells, name) for name in names]
        return [*found, found[0] if self.chosen is None else self.chosen]

    def constants(self, program: str, q: Tensor, v: Tensor) -> dict[str, Any]:
        """What `program` is compiled for, with Triton's own options."""
        h, m, e, f = q.shape[2], v.shape[2], q.shape[3], v.shape[3]
        chip = family(q)
        at = tiles(chip, program, max(padded(e), padded(f)), q.element_size())
        keys = min(padded(self.cells.closed), at.keys)
        top = 1 if self.chosen is None else self.chosen.shape[-1]
        at, whole = at._replace(keys=keys), self.cells.closed <= keys
        return constants(h, m, e, f, at, whole=whole, top=top, picks=self.chosen is not None) | options(chip, at)

    def sizes(self, q: Tensor, k: Tensor) -> list[Any]:
        """scale, t, s, n."""
        return [self.scale, q.shape[1], k.shape[1], self.cells.start.shape[1]]


def constants(h: int, m: int, e: int, f: int, at: Tiles, *, whole: bool, top: int, picks: bool) -> dict[str, Any]:
    """The constants of a program for h query heads and m key heads of e and f channels."""
    sizes = {"H": h, "M": m, "E": e, "F": f, "EP": padded(e), "FP": padded(f), "KP": top, "BM": at.rows, "BN": at.keys}
    return {**sizes, "WHOLE": whole, "TOP": picks, "PRECISION": "ieee"}


class _Landmark(torch.autograd.Function):
    """q (b, t, h, e), k (b, s, m, e), v (b, s, m, f) -> (b, t, h, f), all contiguous."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, cells: Cells, chosen: Tensor | None, scale: float) -> Tensor:
        (b, t, h, _), call = q.shape, _Call(cells, chosen, scale)
        o, sums = q.new_empty(b, t, h, v.shape[-1]), q.new_empty(b, h, t, dtype=torch.float32)
        fixed = call.constants("forward", q, v)
        tables = call.tables("cell", "first", "regular", "start", "length", "size")
        with torch.cuda.device_of(q):
            programs.forward[(-(-t // fixed["BM"]), b * h)](q, k, v, o, sums, *tables, *call.sizes(q, k), **fixed)
        ctx.save_for_backward(q, k, v, o, sums)
        ctx.call = call
        return o

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, o, sums = ctx.saved_tensors
        call, do, (b, t, h, _) = ctx.call, grads[0].contiguous(), q.shape
        dq, dk, dv, pulls = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v), torch.empty_like(sums)  # padding is not written
        with torch.cuda.device_of(q):
            fixed = call.constants("query_gradients", q, v)
            tables = call.tables("cell", "first", "regular", "start", "length", "size")
            given = (q, k, v, o, do, dq, sums, pulls, *tables, *call.sizes(q, k))
            programs.query_gradients[(-(-t // fixed["BM"]), b * h)](*given, **fixed)
            fixed = call.constants("key_gradients", q, v)
            tables = call.tables("start", "length", "size", "stop")
            grid = (call.cells.start.shape[1], b * k.shape[2], -(-call.cells.largest // fixed["BN"]))
            programs.key_gradients[grid](q, k, v, do, dk, dv, sums, pulls, *tables, *call.sizes(q, k), **fixed)
        return dq, dk, dv, None, None, None


def variants() -> list[Variant]:
    """What is compiled ahead of time (kernels/ahead.py): heads of 64 and 128, short blocks and long ones, all of them or the best 8."""
    choices = product(CHIPS, PROGRAMS, (64, 128), BYTES, (False, True), (False, True))
    return [_variant(*choice) for choice in choices if choice[2] <= WIDEST[BYTES[choice[3]]]]


def _variant(chip: Chip, program: str, width: int, dtype: str, long: bool, picks: bool) -> Variant:
    at = tiles(chip.name, program, width, BYTES[dtype])
    fixed = constants(*HEADS, width, width, at, whole=not long, top=8 if picks else 1, picks=picks)
    function = getattr(programs, program)
    signature = _signature(function.arg_names, dtype)
    aligned = tuple(key for key, kind in signature.items() if kind.startswith("*"))
    name = f"{program} {width} {dtype}" + ", long blocks" * long + ", top 8" * picks
    common = dtype == "bf16" and width == 64 and not long and not picks
    return Variant(name, function, signature, fixed, options(chip.name, at), aligned, (chip.name,), common)


def _signature(names: Sequence[str], dtype: str) -> dict[str, str]:
    """The types of a program's arguments."""
    floats, tensors = ("sums", "pulls"), ("q", "k", "v", "o", "do", "dq", "dk", "dv")
    kinds = dict.fromkeys(("t", "s", "n"), "i32") | {"scale": "fp32"}
    kinds |= dict.fromkeys(floats, "*fp32") | dict.fromkeys(tensors, f"*{dtype}")
    return {name: kinds.get(name, "*i32") for name in names if name.islower() or name in kinds}
