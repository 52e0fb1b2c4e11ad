"""What our Triton programs share. A program's tensors are contiguous and read by their sizes; scores are in units of log 2.

`no_type_check` keeps runtime shape checkers off what Triton compiles.
"""

from typing import no_type_check

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
INF = tl.constexpr(float("inf"))


@triton.jit
@no_type_check
def load_rows(base, rows, stride, seen, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Rows of WIDTH elements, `stride` apart, as (rows, PADDED); zeros where not seen."""
    columns = tl.arange(0, PADDED)
    at = base + rows[:, None] * stride + columns[None, :]
    if WIDTH == PADDED:
        return tl.load(at, mask=seen[:, None], other=0.0)
    return tl.load(at, mask=seen[:, None] & (columns < WIDTH)[None, :], other=0.0)


@triton.jit
@no_type_check
def store_rows(base, rows, stride, seen, x, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """x (rows, PADDED) to where `load_rows` finds it."""
    columns = tl.arange(0, PADDED)
    at = base + rows[:, None] * stride + columns[None, :]
    tl.store(at, x.to(base.dtype.element_ty), mask=seen[:, None] & (columns < WIDTH)[None, :])


@triton.jit
@no_type_check
def products(queries, keys, PRECISION: tl.constexpr):
    """Of all pairs, a row a query."""
    return tl.dot(queries, tl.trans(keys), input_precision=PRECISION)


@triton.jit
@no_type_check
def finite(top):
    """A maximum that may be subtracted: of nothing seen it is 0."""
    return tl.where(top == -INF, 0.0, top)


@triton.jit
@no_type_check
def log_sum(top, total):
    """Of a softmax; +inf where it has nothing to mix, so that its weights are 0."""
    return tl.where(total > 0, top + tl.log2(tl.where(total > 0, total, 1.0)), INF)
