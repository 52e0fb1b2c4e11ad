"""The back end of causal-conv1d against the reference: its CUDA kernel, or what stands for it and checks layouts as it does."""

import importlib
import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

import kernels
from kernels.backends import BackendError
from kernels.conv import conv, reference
from tests.kernels.library_backends import assert_same, compare

B, C = 3, 8


@pytest.fixture
def backend(device: str) -> ModuleType:
    pytest.importorskip("causal_conv1d")
    return importlib.import_module("kernels.conv.causal_conv1d")


def inputs(t: int, width: int = 4, *, bias: bool = True, state: bool = True) -> list[Tensor | None]:
    """x, weight, bias, state."""
    x, weight, b, start = (torch.randn(s, dtype=torch.float64) for s in ((B, t, C), (C, width), (C,), (B, width - 1, C)))
    return [x, weight, b if bias else None, start if state else None]


def resets(t: int) -> Tensor:
    """Rows without, with two near each other, with one at the first and one at the last token."""
    reset = torch.zeros(B, t, dtype=torch.bool)
    reset[1, 1:3] = True
    reset[2, 0] = reset[2, -1] = True
    return reset


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("t", [1, 2, 3, 9])
@pytest.mark.parametrize("packed", [False, True], ids=["one", "packed"])
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
@pytest.mark.parametrize("state", [False, True], ids=["fresh", "going on"])
def test_conv_is_the_definition(state: bool, padded: bool, packed: bool, t: int, width: int, backend: ModuleType, device: str) -> None:
    reset = resets(t) if packed else None
    pads = torch.tensor([0, min(2, t), t]) if padded else None
    activation = "silu" if t % 2 else "none"
    given = inputs(t, width, bias=t > 1, state=state)
    compare(backend.conv, reference.conv, given, device, 1e-5, activation=activation, reset=reset, pads=pads)


@pytest.mark.parametrize("before", [0, 3, 8])
@pytest.mark.parametrize("behind", [0, 5, 8])
def test_slices_of_wider_tensors(before: int, behind: int, backend: ModuleType, device: str) -> None:
    """An input within a projection, and a gradient within another's, start where the kernel may not load."""

    def gradients(conv: ModuleType, place: str, dtype: torch.dtype) -> list[Tensor]:
        torch.manual_seed(2)
        shapes = ((B, 5, before + C + behind), (C, 4), (C,), (B, 3, C))
        joint, weight, bias, state = leaves = [torch.randn(s, dtype=torch.float64).to(place, dtype).requires_grad_() for s in shapes]
        y, _ = conv.conv(joint[..., before : before + C], weight, bias, state, activation="silu")
        score = torch.cat([joint[..., :before], y, joint[..., before + C :]], -1).square().sum()
        return [y, *torch.autograd.grad(score, leaves)]

    assert_same(gradients(backend, device, torch.float32), gradients(reference, "cpu", torch.float64), 1e-5)


def test_dtypes(backend: ModuleType, device: str) -> None:
    """A float32 filter on bfloat16 inputs; gradients come in the dtype of what they are of."""
    given = inputs(9)
    right, last = reference.conv(*given, activation="silu")
    x, weight, bias, state = (i.float().to(device).requires_grad_() for i in given)
    half = x.detach().bfloat16().requires_grad_()
    y, after = backend.conv(half, weight, bias, state, activation="silu")
    assert (y.dtype, after.dtype) == (torch.bfloat16, torch.float32)
    assert_same([y, after], [right, last], 0.02)
    for leaf, grad in zip((half, weight, bias, state), torch.autograd.grad(y.sum(), (half, weight, bias, state)), strict=True):
        assert leaf.dtype == grad.dtype


def test_what_is_frozen_gets_no_gradient(backend: ModuleType, device: str) -> None:
    x, weight, bias, state = (i.float().to(device) for i in inputs(6))
    y, after = backend.conv(x, weight.requires_grad_(), bias, state)
    assert torch.autograd.grad(y.sum(), weight)[0].shape == weight.shape
    assert not after.requires_grad


def test_refusals(backend: ModuleType, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias, state = (i.float().to(device) for i in inputs(3))
    refuses = backend.refuses_conv
    assert refuses(x, weight, bias, state) is None
    assert "width 5 is not one of causal-conv1d's 2, 3, 4" in refuses(x, weight.new_zeros(C, 5))
    assert "9 channels" in refuses(x.new_zeros(B, 3, 9), weight.new_zeros(9, 4))
    assert "no kernels for float64" in refuses(x.double(), weight)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert refuses(x.cpu(), weight) == "tensors on cpu need a GPU here"


def test_by_name(backend: ModuleType, device: str) -> None:
    given = [i.float().to(device) for i in inputs(5)]
    with kernels.backend("causal_conv1d"):
        assert_same(conv(*given), reference.conv(*given), 1e-5)
        with pytest.raises(BackendError, match="width 5"):
            conv(given[0], given[1].new_zeros(C, 5))


def test_a_cpu_asks_for_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted(name: str) -> ModuleType:
        raise AssertionError(name)

    monkeypatch.setattr("kernels.backends.importlib.import_module", unwanted)
    assert len(conv(*inputs(3))) == 2


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("causal_conv1d", "kernels.conv.causal_conv1d"):
        monkeypatch.setitem(sys.modules, name, None)
    with kernels.backend("causal_conv1d"), pytest.raises(BackendError, match="can't be imported"):
        conv(*inputs(3))
