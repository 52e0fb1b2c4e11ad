"""A single token: what serves it by itself is held to the definition in values, states and every gradient, and a name still chooses."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels import backend
from kernels.backends import observed
from kernels.conv import STEP as CONV
from kernels.conv import conv
from kernels.decay import decay

B, N, H, K, V, C, W = 2, 3, 6, 5, 7, 9, 4  # pairwise different
Given = dict[str, Tensor]


def tensors(dtype: torch.dtype = torch.float64, **shapes: tuple[int, ...]) -> Given:
    return {name: torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_() for name, shape in shapes.items()}


def results(function: Callable[..., Any], given: Given, dtype: torch.dtype) -> list[Tensor]:
    """Output, state and the gradients of a fixed random functional of both."""
    leaves = {name: x.detach().to(dtype).requires_grad_() for name, x in given.items()}
    y, state = function(**leaves)
    torch.manual_seed(1)
    score = sum((x * torch.randn(x.shape, dtype=torch.float64)).sum() for x in (y, state))
    grads = torch.autograd.grad(score, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return [y, state, *grads]


def held_to_its_reference(function: Callable[..., Any], given: Given) -> None:
    with backend("reference"):
        right = results(function, given, torch.float64)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        for a, b in zip(results(function, given, dtype), right, strict=True):
            assert a.shape == b.shape
            assert float((a.double() - b).detach().norm()) <= tolerance * float(b.detach().norm())


@pytest.mark.parametrize("gate", ["none", "scalar", "vector"])
@pytest.mark.parametrize("bonus", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("started", [False, True])
def test_decay(gate: str, bonus: bool, packed: bool, started: bool) -> None:
    given = tensors(q=(B, 1, N, K), k=(B, 1, N, K), v=(B, 1, H, V))
    if gate != "none":
        g = -10 * torch.rand(B, 1, H, *[K] * (gate == "vector"), dtype=torch.float64)
        given["g"] = g.requires_grad_()
    given |= tensors(state=(B, H, K, V)) if started else {}
    given |= tensors(bonus=(H, K)) if bonus else {}
    reset = torch.tensor([[True], [False]]) if packed else None
    held_to_its_reference(partial(decay, reset=reset), given)


@pytest.mark.parametrize("activation", ["none", "silu"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("started", [False, True])
def test_conv(activation: str, bias: bool, packed: bool, padded: bool, started: bool) -> None:
    given = tensors(x=(B, 1, C), weight=(C, W))
    given |= tensors(bias=(C,)) if bias else {}
    given |= tensors(state=(B, W - 1, C)) if started else {}
    reset = torch.tensor([[True], [False]]) if packed else None
    pads = torch.tensor([0, 1]) if padded else None
    held_to_its_reference(partial(conv, activation=activation, reset=reset, pads=pads), given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtypes(dtype: torch.dtype) -> None:
    """Outputs in the input's dtype, states at least float32, also under autocast; a state holds no more than itself."""
    given = tensors(dtype, q=(B, 1, N, K), k=(B, 1, N, K), v=(B, 1, H, V), g=(B, 1, H))
    state = torch.randn(B, H, K, V)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        y, after = decay(**{**given, "g": -given["g"].abs()}, state=state.to(wide))
        x, last = conv(torch.randn(B, 1, C, dtype=dtype), torch.randn(C, W), None, torch.randn(B, W - 1, C))
    assert (y.dtype, after.dtype) == (dtype, wide)
    assert (x.dtype, last.dtype) == (dtype, wide)
    assert last.untyped_storage().nbytes() == last.nbytes


def test_it_is_chosen_only_by_itself() -> None:
    seen: list[str] = []
    inputs = tensors(q=(B, 1, N, K), k=(B, 1, N, K), v=(B, 1, H, V))
    with observed(lambda operation, name, *_: seen.append(name)):
        for name in ("auto", "chunked", "reference"):
            with backend(name):
                decay(**inputs)
                conv(**tensors(x=(B, 1, C), weight=(C, W)))
        decay(**tensors(q=(B, 2, N, K), k=(B, 2, N, K), v=(B, 2, H, V)))
    assert seen == ["step", "step", "chunked", "chunked", "reference", "reference", "chunked"]
    assert list(CONV)[-3:] == ["step", "chunked", "reference"]
