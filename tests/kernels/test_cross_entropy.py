"""The chunked loss: values and gradients of torch's own cross-entropy on all logits at once."""

import pytest
import torch
import torch.nn.functional as F

import kernels.cross_entropy as module
from kernels.cross_entropy import cross_entropy_by_row, logits_of, summed_cross_entropy


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_values_and_gradients(softcap: float | None, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", rows * 11)
    hidden = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(11, (7,))
    whole = F.cross_entropy(logits_of(hidden, weight, softcap), labels, reduction="sum")
    chunked = summed_cross_entropy(hidden, weight, labels, softcap)
    torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=0)
    for a, b in zip(torch.autograd.grad(3 * chunked, (hidden, weight)), torch.autograd.grad(3 * whole, (hidden, weight)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    by_row = cross_entropy_by_row(hidden.detach(), weight.detach(), labels, softcap)
    torch.testing.assert_close(by_row.sum(), whole.detach(), rtol=1e-12, atol=0)


def test_no_rows_is_zero_and_differentiable() -> None:
    hidden, weight = torch.randn(0, 5, requires_grad=True), torch.randn(11, 5, requires_grad=True)
    loss = summed_cross_entropy(hidden, weight, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert float(loss.detach()) == 0
    assert weight.grad is not None
    assert float(weight.grad.abs().sum()) == 0


def test_under_autocast_the_gradients_have_the_parameters_dtype() -> None:
    hidden, weight = torch.randn(6, 5, requires_grad=True), torch.randn(11, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = summed_cross_entropy(hidden, weight, torch.randint(11, (6,)))
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    assert loss.dtype == torch.float32
