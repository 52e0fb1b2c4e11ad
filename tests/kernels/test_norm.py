"""The root-mean-square norm: both back ends against torch's rms_norm, values and gradients, grouped, without a weight, in every dtype."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import kernels
from kernels.norm import rms_norm

D = 12
BACKENDS = ("reference", "chunked")
GROUPS = (1, 3)


def error(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().norm() / b.detach().norm().clamp(min=1e-30))


def expected(x: Tensor, weight: Tensor | None, groups: int, eps: float) -> Tensor:
    y = F.rms_norm(x.unflatten(-1, (groups, -1)), (x.shape[-1] // groups,), eps=eps).flatten(-2)
    return y if weight is None else y * weight


def inputs(shape: tuple[int, ...], affine: bool, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """x with a mean far from 0, and a weight."""
    x = torch.randn(*shape, D, dtype=torch.float64) + 2
    leaves = [x, torch.randn(D, dtype=torch.float64)] if affine else [x]
    return [i.to(dtype).requires_grad_() for i in leaves]


def run(backend: str, leaves: list[Tensor], groups: int, dy: Tensor) -> list[Tensor]:
    """y and the gradient of every leaf."""
    with kernels.backend(backend):
        y = rms_norm(leaves[0], *leaves[1:], groups=groups, eps=1e-3)
    return [y, *torch.autograd.grad(y, leaves, dy.to(y.dtype))]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (2, 3, 4)])
def test_norm_is_that_of_torch(backend: str, groups: int, affine: bool, shape: tuple[int, ...]) -> None:
    leaves, dy = inputs(shape, affine), torch.randn(*shape, D, dtype=torch.float64)
    y = expected(leaves[0], leaves[1] if affine else None, groups, 1e-3)
    for a, b in zip(run(backend, leaves, groups, dy), [y, *torch.autograd.grad(y, leaves, dy)], strict=True):
        assert a.shape == b.shape
        assert error(a, b) < 1e-13


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("affine", [True, False])
def test_gradcheck(groups: int, affine: bool) -> None:
    leaves = inputs((2, 3), affine)
    assert torch.autograd.gradcheck(lambda x, *w: rms_norm(x, *w, groups=groups, eps=1e-3), leaves)


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_dtypes(backend: str, groups: int) -> None:
    """float32 to its own rounding; bfloat16 inputs and an autocast around give what float32 gives, rounded once."""
    dy = torch.randn(40, D, dtype=torch.float64)
    leaves = inputs((40,), True, torch.float32)
    exact = run(backend, [i.detach().double().requires_grad_() for i in leaves], groups, dy)
    for a, b in zip(run(backend, leaves, groups, dy), exact, strict=True):
        assert a.dtype == torch.float32
        assert error(a.double(), b) < 1e-6
    with torch.autocast("cpu", torch.bfloat16):
        for a, b in zip(run(backend, leaves, groups, dy), exact, strict=True):
            assert a.dtype == torch.float32
            assert error(a.double(), b) < 1e-6
    half = [leaves[0].detach().bfloat16().requires_grad_(), leaves[1]]
    same = run(backend, [half[0].detach().double().requires_grad_(), leaves[1].detach().double().requires_grad_()], groups, dy.bfloat16())
    got = run(backend, half, groups, dy)
    assert [i.dtype for i in got] == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert all(error(a.double(), b.double()) < 4e-3 for a, b in zip(got, same, strict=True))


@pytest.mark.parametrize("groups", GROUPS)
def test_only_what_needs_a_gradient_gets_one(groups: int) -> None:
    x, weight = inputs((2, 3), True)
    dy = torch.randn(2, 3, D, dtype=torch.float64)
    both = torch.autograd.grad(rms_norm(x, weight, groups=groups, eps=1e-3), (x, weight), dy)
    assert torch.equal(torch.autograd.grad(rms_norm(x.detach(), weight, groups=groups, eps=1e-3), weight, dy)[0], both[1])
    assert torch.equal(torch.autograd.grad(rms_norm(x, weight.detach(), groups=groups, eps=1e-3), x, dy)[0], both[0])
    with torch.no_grad():
        assert not rms_norm(x, weight, groups=groups, eps=1e-3).requires_grad


def test_a_slice_of_something_wider() -> None:
    """The input and the gradient that comes in need not be contiguous, and 0 has a finite norm."""
    wide = torch.randn(4, 3, 2 * D, dtype=torch.float64, requires_grad=True)
    dy = torch.randn(4, D, 3, dtype=torch.float64).transpose(1, 2)
    ours = torch.autograd.grad(rms_norm(wide[..., D:], eps=1e-3), wide, dy)[0]
    theirs = torch.autograd.grad(expected(wide[..., D:], None, 1, 1e-3), wide, dy)[0]
    assert error(ours, theirs) < 1e-13
    zero = torch.zeros(2, D, requires_grad=True)
    y = rms_norm(zero, eps=1e-6)
    y.sum().backward()
    assert torch.equal(y, torch.zeros(2, D))
    assert bool(zero.grad.isfinite().all())  # type: ignore[union-attr]


def test_groups_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="5 groups don't divide a width of 12"):
        rms_norm(torch.ones(1, D), groups=5, eps=1e-3)
