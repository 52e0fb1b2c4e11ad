"""A library back end against the reference: values, the last state and every gradient, in float32."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Operation = Callable[..., tuple[Tensor, Tensor]]
Tensors = Sequence[Tensor | None]
TOLERANCE = {"cpu": 1e-5, "cuda": 5e-3}  # of float32: on a GPU its matrix products may be TF32


def results(backend: Operation, given: Tensors, *, device: str = "cpu", dtype: torch.dtype = torch.float64, **options: Any) -> list[Tensor]:
    """Output, last state and gradients of a fixed random functional of both."""
    leaves = [None if x is None else x.to(device, dtype).requires_grad_() for x in given]
    moved = {name: x.to(device) if isinstance(x, Tensor) else x for name, x in options.items()}
    y, state = backend(*leaves, **moved)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) for x in (y, state)]
    grads = torch.autograd.grad((y * weights[0]).sum() + (state * weights[1]).sum(), [x for x in leaves if x is not None])
    return [y, state, *grads]


def assert_same(got: Sequence[Tensor], right: Sequence[Tensor], tolerance: float) -> None:
    for i, (a, b) in enumerate(zip(got, right, strict=True)):
        a, b = a.detach().double().cpu(), b.detach().double().cpu()
        error = (a - b).norm() / (b.norm() + 1e-12)
        assert error < tolerance, f"{i}: {error:.1e}"


def compare(library: Operation, reference: Operation, given: Tensors, device: str, tolerance: float | None = None, **options: Any) -> None:
    """The library back end in float32 on the device against the reference in float64 on the CPU; then without gradients, where another
    path may run."""
    tolerance = TOLERANCE[device] if tolerance is None else tolerance
    right = results(reference, given, **options)
    assert_same(results(library, given, device=device, dtype=torch.float32, **options), right, tolerance)
    with torch.no_grad():
        moved = {name: x.to(device) if isinstance(x, Tensor) else x for name, x in options.items()}
        values = library(*(None if x is None else x.to(device, torch.float32) for x in given), **moved)
    assert_same(values, right[:2], tolerance)
