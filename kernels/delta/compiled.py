"""What torch.compile gets: forward and backward of `rule` as two operations that it doesn't look into."""

from typing import Any

import torch
from torch import Tensor

from kernels.delta import rule
from kernels.delta.chunks import Layout
from kernels.delta.rule import Arguments


@torch.library.custom_op("zoo::delta_rule", mutates_args=())
def rule_op(
    chunk: int,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    state: Tensor,
    reset: Tensor | None,
    beta: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """o, the last state, and the inverses, states and values of all systems, for the backward pass."""
    o, last, kept = rule.forward(Layout.of(v, chunk), Arguments(q, k, v, g, state, reset, beta, a, b))
    return o, last, torch.cat(kept[0::3]), torch.cat(kept[1::3]), torch.cat(kept[2::3])


@rule_op.register_fake
def _(chunk: int, q: Tensor, k: Tensor, v: Tensor, g: Any, state: Tensor, reset: Any, beta: Any, a: Any, b: Any) -> Any:
    (rows, t, h, e), width = k.shape, v.shape[-1]
    n, m = -(-t // chunk) * rows * h, 1 if b is None else 2
    kept = (state.new_empty(n, chunk, chunk), state.new_empty(n, e, width), state.new_empty(n, m * chunk, width))
    return v.new_empty(v.shape), state.new_empty(state.shape), *kept


@torch.library.custom_op("zoo::delta_rule_backward", mutates_args=())
def _backward_op(chunk: int, arguments: list[Tensor], present: list[bool], kept: list[Tensor], do: Tensor, d_last: Tensor) -> list[Tensor]:
    """The gradients of `arguments`, those of Arguments that are `present` (an empty one for reset)."""
    given = iter(arguments)
    x = Arguments(*(next(given) if here else None for here in present))  # type: ignore[arg-type]
    layout = Layout.of(x.v, chunk)
    sizes = [tile.n * x.v[tile.rows].shape[0] * layout.h for _, tiles in layout.walks() for tile in tiles]
    tiles = [part for parts in zip(*(i.split(sizes) for i in kept), strict=True) for part in parts]
    grads = rule.backward(layout, x, tiles, do, d_last)
    return [i.new_empty(0) if grad is None else grad for i, grad in zip(x, grads, strict=True) if i is not None]


@_backward_op.register_fake
def _(chunk: int, arguments: list[Tensor], present: list[bool], kept: list[Tensor], do: Tensor, d_last: Tensor) -> list[Tensor]:
    return [x.new_empty(0) if x.dtype == torch.bool else torch.empty_like(x) for x in arguments]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.chunk, *arguments = inputs
    ctx.present = [x is not None for x in arguments]
    ctx.save_for_backward(*output[2:], *(x for x in arguments if x is not None))


def _gradients(ctx: Any, do: Tensor, d_last: Tensor, *kept: Tensor) -> tuple[Tensor | None, ...]:
    saved = list(ctx.saved_tensors)
    grads = iter(_backward_op(ctx.chunk, saved[3:], ctx.present, saved[:3], do, d_last))
    all_grads = [next(grads) if here else None for here in ctx.present]
    all_grads[Arguments._fields.index("reset")] = None
    return None, *all_grads


rule_op.register_autograd(_gradients, setup_context=_setup)
