"""Chunks as matrix products with the decay taken out as factors (kernels/decay/factors.py), with our own backward pass.

In a chunk of linear attention every output reads the chunk's values and the state before it: o = [tril(q k^T) | q] [v; S], one
product, in which all heads of a group share the left factor. So values and states lie below one another in one buffer, which is
also all that the backward pass needs again; it has the same shape: [dv] = [triu(k q^T) | k] [do; dS'].
States are passed on one chunk after another; `spans` keeps what is worked on in cache.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.decay.factors import Factors, GateFactors, gate_factors
from kernels.decay.spans import Span, spans
from kernels.dtypes import wide


class Inputs(NamedTuple):
    """What the operation reads; `strict`: a token's output doesn't see its own decay and write."""

    q: Tensor  # (b, t, n, k)
    k: Tensor  # (b, t, n, k)
    v: Tensor  # (b, t, h, v)
    g: Tensor | None
    reset: Tensor | None
    size: int
    strict: bool

    @property
    def dtype(self) -> torch.dtype:
        return wide(self.v[:0]).dtype

    @property
    def groups(self) -> int:
        return self.q.shape[2]

    @property
    def heads(self) -> int:
        """r, heads of a group."""
        return self.v.shape[2] // self.q.shape[2]

    def gate(self) -> GateFactors:
        return gate_factors(self.g, self.size, self.groups, self.dtype, strict=self.strict)

    def blocks(self) -> Iterator[list[Span]]:
        b, t, n, k = self.q.shape
        return spans(b, t, self.size, n * (self.size + k) * self.heads * self.v.shape[3])

    def new(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.dtype, device=self.v.device)

    def stack(self, span: Span) -> Tensor:
        """A buffer of each chunk's values above the state before it, (c rows n, i + k, r v)."""
        chunks = span.chunks * (span.rows.stop - span.rows.start) * self.groups
        return self.new(chunks, span.size + self.q.shape[3], self.heads * self.v.shape[3])


class Masks(NamedTuple):
    """Who sees whom in a span."""

    seen: Tensor  # (i, i) or (c rows n, i, i): 1 where token i sees token j of its chunk
    enter: Tensor | None  # (c rows n, i, 1): 1 where a token sees the state before its chunk
    leave: Tensor | None  # (c rows n, i, 1): 1 where the state after the chunk holds a token's write
    keep: Tensor | None  # (c rows n, 1, 1): 1 where the state before the chunk outlives it


def masks(given: Inputs, span: Span) -> Masks:
    seen = torch.ones(span.size, span.size, dtype=given.dtype, device=given.v.device).tril_(-1 if given.strict else 0)
    if given.reset is None:
        return Masks(seen, None, None, None)
    segment = span.of(given.reset).cumsum(2)[:, :, None].expand(-1, -1, given.groups, -1).reshape(-1, span.size, 1)
    enter, leave = segment == 0, segment == segment[:, -1:]
    same = seen * (segment == segment.mT)
    return Masks(same, *(x.to(seen.dtype) for x in (enter, leave, enter[:, -1:])))


def times(x: Tensor, factor: Tensor | None, out: Tensor) -> Tensor:
    """x * factor, written into out, which is returned."""
    return out.copy_(x) if factor is None else torch.mul(x, factor, out=out)


def states(given: Inputs, x: Tensor) -> Tensor:
    """States (rows, h, k, v) as (rows n, k, r v) in the work's dtype, a copy."""
    x = x.to(given.dtype, copy=True).unflatten(1, (given.groups, -1)).transpose(2, 3)
    return x.flatten(-2).flatten(0, 1).contiguous()


def forward(given: Inputs, state: Tensor | None, *, keep: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
    """o, the state after it, and, to `keep` for the backward pass, the stacks of all spans in order."""
    b, _, h, e = given.v.shape
    k = given.q.shape[3]
    o, final = torch.empty_like(given.v, memory_format=torch.contiguous_format), given.new(b, h, k, e)
    stacks: list[Tensor] = []
    gate = given.gate()
    if state is not None and gate.first is not None:
        state = state * gate.first
    for block in given.blocks():
        rows = block[0].rows
        stack = given.stack(block[0])
        per = stack.shape[0] // block[0].chunks
        last = given.new(per, *final.shape[2:3], given.heads * e)
        if state is None:
            stack[:per, block[0].size :] = 0
        else:
            stack[:per, block[0].size :] = states(given, state[rows])
        for place, span in enumerate(block):
            if place + 1 == len(block):
                following, home = stack, last
            else:
                after = block[place + 1]
                following = stack if not keep and (after.chunks, after.size) == (span.chunks, span.size) else given.stack(after)
                home = following[:per, after.size :]
            _span(given, gate.of(span), span, stack, home, o)
            if keep:
                stacks.append(stack)
            stack = following
        final[rows] = last.view(-1, given.groups, k, given.heads, e).transpose(2, 3).flatten(1, 2)
    return o, final, stacks


def _span(given: Inputs, f: Factors, span: Span, stack: Tensor, home: Tensor, o: Tensor) -> None:
    """Outputs of a span; its first state lies in the stack, the state after it goes to `home`."""
    n, r, i, per = given.groups, given.heads, span.size, home.shape[0]
    m = masks(given, span)
    left = given.new(stack.shape[0], i, stack.shape[1])
    q, k, v = left[..., i:], given.new(stack.shape[0], i, given.q.shape[3]), stack[:, :i]
    times(span.of(given.q).transpose(2, 3), f.q, span.chunked(q, n))
    times(span.of(given.k).transpose(2, 3), f.k, span.chunked(k, n))
    times(span.groups(given.v, n), f.v, span.chunked(v, n, r))
    torch.bmm(q, k.mT, out=left[..., :i])
    left[..., :i].mul_(m.seen)
    if m.enter is not None:
        q.mul_(m.enter)
    writes = _writes(span, f, m, k, v, n, r)
    for c in range(span.chunks - 1):
        writes.advance(c, stack[c * per : (c + 1) * per, i:], stack[(c + 1) * per : (c + 2) * per, i:])
    out = torch.bmm(left, stack)
    writes.advance(span.chunks - 1, stack[-per:, i:], home)
    times(span.chunked(out, n, r), f.o, span.groups(o, n))


class Writes(NamedTuple):
    """S' = carry S + k^T v of each chunk."""

    k: Tensor  # (c rows n, i, k)
    v: Tensor  # (c rows n, i, r v)
    carry: Tensor | None  # (c, rows n, k or 1, r or 1, 1)

    def advance(self, c: int, before: Tensor, after: Tensor) -> None:
        """From the state before chunk c to the one after it, (rows n, k, r v) each."""
        here = slice(c * after.shape[0], (c + 1) * after.shape[0])
        kept = before if self.carry is None else scale(before, self.carry[c], after)
        torch.baddbmm(kept, self.k[here].mT, self.v[here], out=after)


def scale(state: Tensor, factor: Tensor, out: Tensor) -> Tensor:
    """A state (rows n, k, r v) times a factor (rows n, k or 1, r or 1, 1), written into out, which is returned."""
    heads = (factor.shape[2], -1)
    torch.mul(state.unflatten(-1, heads), factor, out=out.unflatten(-1, heads))
    return out


def _writes(span: Span, f: Factors, m: Masks, k: Tensor, v: Tensor, n: int, r: int) -> Writes:
    carry = f.carry
    if f.v is not None and carry is not None:
        v = (v.unflatten(0, (span.chunks, -1)).unflatten(-1, (r, -1)) * carry).flatten(-2).flatten(0, 1)
    elif carry is not None:
        k = (k.unflatten(0, (span.chunks, -1)) * carry[..., 0].mT).flatten(0, 1)
    if m.leave is not None and m.keep is not None:
        k = k * m.leave
        keep = m.keep.view(span.chunks, -1, 1, 1, 1)
        carry = keep if carry is None else carry * keep
    return Writes(k, v, carry)
