"""What torch.compile sees of an operation: one node, whatever the length, for whoever compiles a model around it.

    @opaque(outputs)
    def operation(q, ..., chunk=None): ...

Traced as they are, the loops over chunks would be unrolled: minutes of tracing, and again for every other number of chunks. Behind
the node the operation runs as it does without a compiler, in the back end that is chosen when the program runs. The backward pass runs
it again (a node can't hand its intermediate values on), so a compiled training step does the forward work of the operation twice.
A single token is traced through, where its back end is a few plain steps, which a compiler fuses with those around them.

outputs(*the same arguments) gives tensors of the outputs' shapes and dtypes, with any content. The first argument is (b, t, ...);
arguments that are neither tensors nor None must be Python constants.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

P = ParamSpec("P")
R = TypeVar("R")
Outputs = Callable[..., tuple[Tensor, ...]]


class _Operation(NamedTuple):
    function: Callable[..., Any]
    outputs: Outputs


class _Layout(NamedTuple):
    """Arguments without their tensors."""

    operation: str
    places: tuple[int, ...]  # of each argument: which of the node's tensors it is, -1 = a constant
    constants: tuple[Any, ...]  # of each argument; None where a tensor goes
    names: tuple[str, ...]  # of the last arguments, which are given by keyword


_operations: dict[str, _Operation] = {}
_OUTSIDE = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()  # of a thread in no operation
_layouts: list[_Layout] = []  # a node names its layout by its index: a schema has no place for arbitrary constants


def opaque(outputs: Outputs, *, traced: int = 1) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """See the module. Of a function that returns one tensor or a tuple of them; texts of at most `traced` tokens are no node."""

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        name = f"{function.__module__}.{function.__name__}"
        _operations[name] = _Operation(function, outputs)

        @wraps(function)
        def served(*args: P.args, **kwargs: P.kwargs) -> R:
            if torch.compiler.is_compiling() and _length(args, kwargs) > traced:
                return _node(name, args, kwargs)
            return function(*args, **kwargs)

        return served

    return wrap


def _length(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    return [*args, *kwargs.values()][0].shape[1]


def _node(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Each tensor is passed once, however many arguments it is: a traced Function takes none twice."""
    tensors: list[Tensor] = []
    places, constants = [], []
    for x in [*args, *kwargs.values()]:
        known = [i for i, y in enumerate(tensors) if x is y]
        if isinstance(x, Tensor) and not known:
            tensors.append(x)
        places.append((known[0] if known else len(tensors) - 1) if isinstance(x, Tensor) else -1)
        constants.append(None if isinstance(x, Tensor) else x)
    results = _Node.apply(_index(name, tuple(places), tuple(constants), tuple(kwargs)), *tensors)
    return results if len(results) > 1 else results[0]


def _index(name: str, places: tuple[int, ...], constants: tuple[Any, ...], names: tuple[str, ...]) -> int:
    layout = _Layout(name, places, constants, names)
    if layout not in _layouts:
        _layouts.append(layout)
    return _layouts.index(layout)


# What torch.compiler.assume_constant_result does; it imports the compiler first, which takes as long as torch itself.
_index._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _called(function: Callable[..., Any], layout: _Layout, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    values = [x if i < 0 else tensors[i] for i, x in zip(layout.places, layout.constants, strict=True)]
    first = len(values) - len(layout.names)
    results = function(*values[:first], **dict(zip(layout.names, values[first:], strict=True)))
    return results if isinstance(results, tuple) else (results,)


@torch.library.custom_op("zoo::forward", mutates_args=())
def _forward(layout: int, tensors: Sequence[Tensor]) -> list[Tensor]:
    place = _layouts[layout]
    with torch.no_grad():
        return [_own(x, tensors) for x in _called(_operations[place.operation].function, place, tensors)]


@_forward.register_fake
def _(layout: int, tensors: Sequence[Tensor]) -> list[Tensor]:
    place = _layouts[layout]
    return [
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in _called(_operations[place.operation].outputs, place, tensors)
    ]


@torch.library.custom_op("zoo::backward", mutates_args=())
def _backward(layout: int, tensors: Sequence[Tensor], gradients: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor]:
    """The gradient of every wanted tensor; an empty one of the others."""
    place = _layouts[layout]
    with torch._C._ForceDispatchKeyGuard(*_OUTSIDE), torch.enable_grad():  # inside an operation autograd sees nothing
        leaves = [x.detach().requires_grad_(want) for x, want in zip(tensors, wanted, strict=True)]
        outputs = _called(_operations[place.operation].function, place, leaves)
        scored = [(y, g) for y, g in zip(outputs, gradients, strict=True) if y.requires_grad]
        asked = [x for x in leaves if x.requires_grad]
        ys, gs = [y for y, _ in scored], [g for _, g in scored]
        found = iter(torch.autograd.grad(ys, asked, gs, allow_unused=True, materialize_grads=True))
    return [next(found).contiguous() if want else x.new_empty(0) for x, want in zip(tensors, wanted, strict=True)]


@_backward.register_fake
def _(layout: int, tensors: Sequence[Tensor], gradients: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor]:
    return [
        torch.empty_like(x, memory_format=torch.contiguous_format) if want else x.new_empty(0)
        for x, want in zip(tensors, wanted, strict=True)
    ]


def _own(x: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """x in memory of its own: a node's outputs may not be its inputs, nor of another layout than was promised."""
    shared = any(x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr() for y in tensors)
    return x.clone(memory_format=torch.contiguous_format) if shared else x.contiguous()


class _Node(torch.autograd.Function):
    """(layout, *tensors) -> outputs."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        ctx, layout, *tensors = inputs  # named ones Dynamo counts: without gradients it takes ctx away where inputs are one more
        ctx.save_for_backward(*tensors)
        ctx.layout = layout
        return tuple(_forward(layout, list(tensors)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        tensors, wanted = list(ctx.saved_tensors), list(ctx.needs_input_grad[1:])
        found = _backward(ctx.layout, tensors, [g.contiguous() for g in gradients], wanted)
        return (None, *(g if want else None for g, want in zip(found, wanted, strict=True)))
