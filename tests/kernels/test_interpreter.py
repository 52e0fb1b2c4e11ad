"""Triton's interpreter as tests use it: loops, gathers and bfloat16 as on a GPU."""

import pytest
import torch

triton = pytest.importorskip("triton")
tl = triton.language
gather = tl.gather  # as a library that takes it at import

pytestmark = pytest.mark.interpreted
N = tl.constexpr(16)


@triton.jit
def total(x):
    return tl.sum(x, 0)


@triton.jit
def arithmetic(a, b, sums, products):
    rows, columns = tl.arange(0, N)[:, None], tl.arange(0, N)[None, :]
    x, y = tl.load(a + rows * N + columns), tl.load(b + rows * N + columns)
    z = tl.exp(x.to(tl.float32)).to(x.dtype) - x * y
    tl.store(sums + tl.arange(0, N), total(z) + tl.max(z, 0))
    accumulator = tl.zeros([N, N], tl.float32)
    for i in range(3):
        accumulator += i.to(tl.float32) * tl.dot(x, y)
    tl.store(products + rows * N + columns, accumulator.to(x.dtype))


@triton.jit
def reversal(a, out):
    places = tl.arange(0, N)
    tl.store(out + places, gather(tl.load(a + places), N - 1 - places, 0))


@triton.jit
def count(flags, out):
    tl.atomic_add(out, tl.load(flags))


def test_bfloat16_is_rounded_float32() -> None:
    a, b = torch.randn(16, 16).bfloat16(), torch.randn(16, 16).bfloat16()
    sums, products = torch.empty(16).bfloat16(), torch.empty(16, 16).bfloat16()
    arithmetic[(1,)](a, b, sums, products)
    z = a.float().exp().bfloat16() - a * b
    assert torch.equal(sums, z.float().sum(0).bfloat16() + z.max(0).values)
    assert torch.equal(products, (3 * (a.float() @ b.float())).bfloat16())


def test_rounding_is_to_the_nearest_and_carries() -> None:
    from tests.interpreter import _round, _wide

    x = torch.cat([torch.tensor([1.998, 1.00390625, 1.01171875, 3e38, -1e-40, float("inf"), float("nan")]), torch.randn(1000)])
    rounded = torch.from_numpy(_wide(_round(x.numpy())))
    assert torch.equal(rounded.nan_to_num(7), x.bfloat16().float().nan_to_num(7))


def test_gather_taken_at_import() -> None:
    a, out = torch.randn(16), torch.empty(16)
    reversal[(1,)](a, out)
    assert torch.equal(out, a.flip(0))


def test_atomic_bfloat16_is_refused() -> None:
    with pytest.raises(triton.runtime.errors.InterpreterError, match="no atomic operations on bfloat16"):
        count[(1,)](torch.ones(1).bfloat16(), torch.zeros(1).bfloat16())
