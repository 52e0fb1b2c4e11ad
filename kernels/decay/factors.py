"""Decays that are mild over a chunk, as factors: exp(g_j+1 + .. + g_i) = 2^(G_i) 2^(-G_j) with G summed from a point of the chunk.

A scalar gate's factors go to the outputs and the values, a vector gate's to the queries and the keys. What is left of the chunk is
plain linear attention. The bounds keep both factors well inside float32, and a step's decay small enough for a token's own
(undecayed) share not to drown the gate's gradient. A scalar gate's sums start from the middle of the chunk's decay, so the states
before chunks are kept decayed to there; only products with their gradients are ever used, in which that cancels.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.decay.spans import Span
from kernels.dtypes import LOG2E

SCALAR, VECTOR = 160.0, 50.0  # powers of two that a chunk may decay by; a scalar gate's sums are float64, a vector gate's float32
STEP = 5.0  # and on average each of its steps


class Factors(NamedTuple):
    """Of a span, None = 1; S' = carry S + (k factor_k)^T (v factor_v) carry."""

    q: Tensor | None = None  # (c, rows, n, i, k)
    k: Tensor | None = None  # (c, rows, n, i, k)
    v: Tensor | None = None  # (c, rows, n, i, r, 1)
    o: Tensor | None = None  # (c, rows, n, i, r, 1)
    carry: Tensor | None = None  # (c, rows n, k or 1, r or 1, 1)


class NoGate:
    """Nothing is forgotten."""

    first: Tensor | None = None  # (b, h, 1, 1) factor on the first state

    def of(self, span: Span) -> Factors:
        return Factors()


class ScalarGate:
    """The factors of a gate (b, t, h), for the whole text: they are small."""

    def __init__(self, g: Tensor, size: int, groups: int, dtype: torch.dtype, *, strict: bool) -> None:
        t = g.shape[1]
        self.groups = groups
        steps = F.pad(g.double() * LOG2E, (0, 0, 0, -t % size)).unflatten(1, (-1, size))
        through = steps.cumsum(2)
        total = through[:, :, -1:]
        middle = F.pad(total / 2, (0, 0, 0, 0, 0, 1))  # the last is that of the final state
        start = middle[:, :-1]
        reach = through - start
        self.v = reach.neg().exp2_().to(dtype).flatten(1, 2)[:, :t, :, None]
        self.o = (reach - steps if strict else reach).exp2().to(dtype).flatten(1, 2)[:, :t, :, None]
        self.carry = (start + middle[:, 1:]).exp2().to(dtype).transpose(0, 1)  # (c, b, 1, h)
        self.first = start[:, 0, 0, :, None, None].exp2().to(dtype)
        self.size = size

    def of(self, span: Span) -> Factors:
        c = span.start // self.size
        carry = self.carry[c : c + span.chunks, span.rows].reshape(span.chunks, -1, 1, self.carry.shape[3] // self.groups, 1)
        return Factors(v=span.groups(self.v, self.groups), o=span.groups(self.o, self.groups), carry=carry)


class VectorGate:
    """The factors of a gate (b, t, h, k), span by span: they are as large as the keys."""

    first: Tensor | None = None

    def __init__(self, g: Tensor, dtype: torch.dtype, *, strict: bool) -> None:
        self.g, self.dtype, self.strict = g, dtype, strict

    def of(self, span: Span) -> Factors:
        steps = (span.of(self.g).to(self.dtype) * LOG2E).transpose(2, 3)
        through = steps.cumsum(3)
        reach = through - steps if self.strict else through
        carry = through[:, :, :, -1, :, None, None].exp2().flatten(1, 2)
        return Factors(q=reach.exp2(), k=through.neg().exp2_(), carry=carry)


GateFactors = NoGate | ScalarGate | VectorGate


def gate_factors(g: Tensor | None, size: int, groups: int, dtype: torch.dtype, *, strict: bool) -> GateFactors:
    """strict: a row reads the state before its own decay."""
    if g is None:
        return NoGate()
    return VectorGate(g, dtype, strict=strict) if g.ndim == 4 else ScalarGate(g, size, groups, dtype, strict=strict)


def is_mild(g: Tensor | None, size: int) -> bool:
    """Whether chunks of `size` tokens can be factored; of a meta tensor, which has nothing to look at, they can."""
    if g is None or g.is_meta:
        return True
    decays, bound = g.detach(), min(SCALAR if g.ndim == 3 else VECTOR, STEP * size) / LOG2E
    whole = g.shape[1] // size * size
    sums = [decays[:, whole:].sum(1)] if whole < g.shape[1] else []
    if whole:
        sums.append(decays[:, :whole].unflatten(1, (-1, size)).sum(2))
    return all(bool(x.amin() >= -bound) for x in sums)


def gate_gradient(rows: Tensor, columns: Tensor, total: Tensor, *, strict: bool) -> Tensor:
    """The gradient of each step's log decay, in float64 if there is one factor a head.

    rows, columns (c, rows, n, i, r or k): the products of each token's o (q) and v (k) with their gradients; a pair of tokens
    gives the same to both, so their difference, summed from the text's end, is what crosses a step. total (c, rows, n, 1, r or k):
    the product of the state after the chunk with its gradient.
    """
    crossing = rows - columns
    size = crossing.shape[3]
    if crossing.shape[-1] > 8:
        gradient = torch.matmul(crossing.new_ones(size, size).triu(), crossing)
    else:
        gradient = crossing.double().flip(3).cumsum(3).flip(3)
    return gradient.add_(total) if not strict else gradient.add_(total).sub_(rows)
