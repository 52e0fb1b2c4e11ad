"""The guard: a step whose operations are right passes and is not touched; an operation that is wrong is named."""

import math

import pytest
import torch
from torch import Tensor

from kernels.backends import serve
from kernels.conv import conv
from kernels.decay import BACKENDS, decay
from kernels.verify import KernelError, verified


def right(x: Tensor, scale: Tensor | None = None) -> Tensor:
    return x.square() if scale is None else x.square() * scale


class _Square(torch.autograd.Function):
    """x^2 with a gradient that is off by a factor."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x.square()

    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.factor * ctx.saved_tensors[0] * grad, None


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (lambda x, scale: x.square() * scale * (1 + 1e-3), "output 0"),
        (lambda x, scale: torch.full_like(x, math.nan) * x * scale, "output 0"),
        (lambda x, scale: _Square.apply(x, 1.001) * scale, "gradient 0"),
        (lambda x, scale: x.square() * scale.detach(), "gradient 1"),
    ],
    ids=["value", "nan", "gradient", "no gradient"],
)
def test_a_wrong_operation_is_named(wrong: object, what: str) -> None:
    x, scale = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    with verified(), pytest.raises(KernelError, match=f"square: backend 'chunked' differs from the reference in {what}"):
        serve("square", {"chunked": wrong, "reference": right}, x, scale)


def test_a_difference_below_the_tolerance_passes_in_its_dtype_only() -> None:
    backends = {"chunked": lambda x: x.square() * (1 + 1e-3), "reference": right}
    with verified():
        serve("square", backends, torch.randn(8, requires_grad=True, dtype=torch.bfloat16))
        with pytest.raises(KernelError):
            serve("square", backends, torch.randn(8, requires_grad=True))


def test_the_step_itself_is_not_touched() -> None:
    q, k, v = (torch.randn(2, 70, 2, 8, requires_grad=True) for _ in range(3))
    g = torch.nn.functional.logsigmoid(torch.randn(2, 70, 2))
    plain = torch.autograd.grad(decay(q, k, v, g)[0].sum(), (q, k, v))
    state = torch.get_rng_state()
    with verified():
        again = torch.autograd.grad(decay(q, k, v, g)[0].sum(), (q, k, v))
        conv(torch.randn(2, 9, 4, requires_grad=True), torch.randn(4, 3))
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert q.grad is None
    torch.set_rng_state(state)


def test_what_the_reference_serves_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "chunked", None)
    from kernels import backend

    x = torch.randn(1, 3, 1, 2)
    with backend("reference"), verified():
        decay(x, x, x)
