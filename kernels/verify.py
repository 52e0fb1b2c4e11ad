"""A guard: every operation of a step compared with its reference, on the step's own inputs.

    with verified(): loss = model(...); loss.backward()        # raises KernelError at the first operation that differs

The operation is run again on copies of its inputs, in the back end that serves it and in the reference, the latter in float32 at least;
outputs and the gradients of every input are compared. The step itself is not touched.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from kernels.backends import Backends, observed
from kernels.dtypes import wide

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}  # relative norm of a difference
NEGLIGIBLE = 1e-4  # a gradient this much smaller than the largest one is rounding of the others


class KernelError(AssertionError):
    """An operation differs from its reference."""


@contextmanager
def verified() -> Iterator[None]:
    """Compare each operation inside this `with` with its reference. Raises KernelError."""
    with observed(_verify):
        yield


def _verify(operation: str, name: str, backends: Backends[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if name == "reference":
        return
    worst, what, tolerance = compare(backends, name, args, kwargs)
    if not worst <= tolerance:  # a NaN is no agreement
        difference = f"differs from the reference in {what} by {worst:.1e}, more than {tolerance:.0e}"
        raise KernelError(f"{operation}: backend {name!r} {difference}; another kernels.backend may serve")


def compare(backends: Backends[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[float, str, float]:
    """Back end `name` beside the reference on copies of these arguments: the largest relative difference, of which tensor, and how
    large it may be in the arguments' narrowest dtype."""
    with observed(_nobody):
        ours = _run(backends[name], args, kwargs, exact=False)
        truth = _run(backends["reference"], args, kwargs, exact=True)
    largest = max((float(t.norm()) for key, t in truth.items() if key.startswith("gradient")), default=0.0)
    worst, what = 0.0, "nothing"
    for key, expected in truth.items():
        norm = float(expected.norm())
        floor = NEGLIGIBLE * largest if key.startswith("gradient") else 1e-30
        difference = float((ours[key].to(expected.dtype) - expected).norm()) / max(norm, floor, 1e-30)
        if difference > worst or math.isnan(difference):
            worst, what = difference, key
        if math.isnan(worst):
            break
    return worst, what, max(TOLERANCE[dtype] for dtype in _dtypes(args, kwargs))


def _dtypes(args: tuple[Any, ...], kwargs: dict[str, Any]) -> set[torch.dtype]:
    tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    device = tensors[0].device.type
    cast = {torch.get_autocast_dtype(device)} if torch.is_autocast_enabled(device) else set()
    return cast | {x.dtype for x in tensors if x.is_floating_point()}


def _run(backend: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, exact: bool) -> dict[str, Tensor]:
    """Outputs and gradients by name, from fixed random gradients of the outputs. exact: without autocast."""
    inputs, shape = pytree.tree_flatten((args, kwargs))
    fresh = [_copy(x, exact) if isinstance(x, Tensor) else x for x in inputs]
    own_args, own_kwargs = pytree.tree_unflatten(fresh, shape)
    device = next(x.device.type for x in fresh if isinstance(x, Tensor))
    with torch.enable_grad(), torch.autocast(device, enabled=False) if exact else nullcontext():
        outputs = [y for y in pytree.tree_leaves(backend(*own_args, **own_kwargs)) if isinstance(y, Tensor)]
        found = {f"output {i}": y.detach() for i, y in enumerate(outputs)}
        leaves = [x for x in fresh if isinstance(x, Tensor) and x.requires_grad]
        scored = [y for y in outputs if y.requires_grad]
        if scored:
            grads = torch.autograd.grad(scored, leaves, [_fixed(y) for y in scored], allow_unused=True)
            whole = [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads, strict=True)]
            found |= {f"gradient {i}": g for i, g in enumerate(whole)}
    return found


def _copy(x: Tensor, exact: bool) -> Tensor:
    if not x.is_floating_point():
        return x
    return (wide(x) if exact else x).detach().clone().requires_grad_()


def _fixed(y: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.device, y.dtype)


def _nobody(*_: Any) -> None:
    """Not to be watched while comparing."""
