"""The backward pass of factored chunks: the stacks of values and states come from the forward pass, all else is computed again."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.decay.factored import Inputs, Masks, forward, masks, scale, states, times
from kernels.decay.factors import Factors, gate_gradient
from kernels.decay.spans import Span


class Factored(torch.autograd.Function):
    """(q, k, v, g, state, reset, size, strict, whether a gradient is wanted) -> o, the state after it."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor | None,
        state: Tensor | None,
        reset: Tensor | None,
        size: int,
        strict: bool,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        given = Inputs(q, k, v, g, reset, size, strict)
        with torch.autocast(v.device.type, enabled=False):
            o, final, stacks = forward(given, state, keep=keep)
        ctx.set_materialize_grads(False)
        if keep:
            ctx.save_for_backward(q, k, v, g, state, reset, o, final, *stacks)
        ctx.size, ctx.strict = size, strict
        return o, final

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor | None, dfinal: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, g, state, reset, o, final, *stacks = ctx.saved_tensors
        grads = Gradients(Inputs(q, k, v, g, reset, ctx.size, ctx.strict), ctx.needs_input_grad[3])
        with torch.autocast(v.device.type, enabled=False):
            dstate = grads.run(o, torch.zeros_like(o) if do is None else do, final, dfinal, stacks)
        return grads.q, grads.k, grads.v, grads.g, None if state is None else dstate.to(state.dtype), None, None, None, None


class Chunks(NamedTuple):
    """A span's chunks, recomputed."""

    span: Span
    f: Factors
    m: Masks
    q: Tensor  # (c rows n, i, k)
    k: Tensor  # (c rows n, i, k)
    stack: Tensor  # (c rows n, i + k, r v): values above the states before the chunks
    dstack: Tensor  # the same: the gradients of outputs above those of the states after the chunks, decayed through them

    def of(self, x: Tensor, c: int) -> Tensor:
        """Chunk c's part of (c rows n, ...)."""
        per = len(x) // self.span.chunks
        return x[c * per : (c + 1) * per]


class Gradients:
    """Those of q, k, v and, if `gate`, of g, filled in span after span from the text's end."""

    def __init__(self, given: Inputs, gate: bool) -> None:
        self.given, self.gate = given, given.gate()
        self.q, self.k, self.v = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (given.q, given.k, given.v))
        self.g = torch.empty(given.g.shape, dtype=given.g.dtype, device=given.g.device) if gate and given.g is not None else None

    def run(self, o: Tensor, do: Tensor, final: Tensor, dfinal: Tensor | None, stacks: list[Tensor]) -> Tensor:
        """The gradient of the first state. do, dfinal: those of the results o and final."""
        given, dstate = self.given, torch.empty_like(final)
        for block in given.blocks():
            rows = block[0].rows
            after = states(given, final[rows])
            dafter = torch.zeros_like(after) if dfinal is None else states(given, dfinal[rows])
            mine, stacks = stacks[: len(block)], stacks[len(block) :]
            for span, stack in zip(reversed(block), reversed(mine), strict=True):
                self._span(span, stack, o, do, after, dafter)
                after = stack[: after.shape[0], span.size :]
            dstate[rows] = dafter.view(-1, given.groups, *dafter.shape[1:2], given.heads, o.shape[3]).transpose(2, 3).flatten(1, 2)
        return dstate if self.gate.first is None else dstate.mul_(self.gate.first)

    def _span(self, span: Span, stack: Tensor, o: Tensor, do: Tensor, after: Tensor, dafter: Tensor) -> None:
        """`dafter`, the gradient of the state after the span, becomes that of the state before it."""
        given, i, n = self.given, span.size, self.given.groups
        f, m = self.gate.of(span), masks(given, span)
        right, dstack = given.new(len(stack), i, stack.shape[1]), torch.empty_like(stack)
        k = right[..., i:] if m.leave is None else given.new(len(stack), i, given.k.shape[3])
        q = torch.empty_like(k, memory_format=torch.contiguous_format)
        times(span.of(given.q).transpose(2, 3), f.q, span.chunked(q, n))
        times(span.of(given.k).transpose(2, 3), f.k, span.chunked(k, n))
        times(span.groups(do, n), f.o, span.chunked(dstack[:, :i], n, given.heads))
        chunks = Chunks(span, f, m, q, k, stack, dstack)
        total = self._pass_back(chunks, after, dafter)
        torch.bmm(k, q.mT, out=right[..., :i])
        right[..., :i].mul_(m.seen.mT)
        if m.leave is not None:
            torch.mul(k, m.leave, out=right[..., i:])
        dv = torch.bmm(right, dstack)
        times(span.chunked(dv, n, given.heads), f.v, span.groups(self.v, n))
        dq, dk = _queries_and_keys(chunks)
        times(span.chunked(dq, n), f.q, span.of(self.q).transpose(2, 3))
        times(span.chunked(dk, n), f.k, span.of(self.k).transpose(2, 3))
        if self.g is not None and f.v is not None:
            rows = (span.groups(do, n) * span.groups(o, n)).sum(-1)
            columns = span.chunked(dv.mul_(stack[:, :i]), n, given.heads).sum(-1)
            grad = gate_gradient(rows, columns, total, strict=given.strict)
            span.of(self.g).copy_(grad.transpose(2, 3).flatten(3))
        elif self.g is not None:
            rows, columns = span.chunked(dq.mul_(q), n), span.chunked(dk.mul_(k), n)
            span.of(self.g).copy_(gate_gradient(rows, columns, total, strict=given.strict).transpose(2, 3))

    def _pass_back(self, chunks: Chunks, after: Tensor, dafter: Tensor) -> Tensor:
        """Fill the lower part of the gradients' stack and bring `dafter` to the span's start; what `gate_gradient` calls total."""
        span, f, m, i = chunks.span, chunks.f, chunks.m, chunks.span.size
        q = chunks.q if m.enter is None else chunks.q * m.enter
        totals = []
        for c in reversed(range(span.chunks)):
            if self.g is not None:
                totals.append(self._total(f, after * dafter))
            decayed = chunks.of(chunks.dstack, c)[:, i:]
            if f.carry is None:
                decayed.copy_(dafter)
            else:
                scale(dafter, f.carry[c], decayed)
            kept = decayed if m.keep is None else decayed * chunks.of(m.keep, c)
            torch.baddbmm(kept, chunks.of(q, c).mT, chunks.of(chunks.dstack, c)[:, :i], out=dafter)
            after = chunks.of(chunks.stack, c)[:, i:]
        return torch.stack(totals[::-1]).unflatten(1, (-1, self.given.groups))[:, :, :, None] if totals else dafter

    def _total(self, f: Factors, product: Tensor) -> Tensor:
        """Of (rows n, k, r v) the sums that go with one entry of the gate: (rows n, r) or (rows n, k)."""
        return product.unflatten(-1, (self.given.heads, -1)).sum((1, 3)) if f.v is not None else product.sum(-1)


def _queries_and_keys(chunks: Chunks) -> tuple[Tensor, Tensor]:
    """The gradients of the factored queries and keys (c rows n, i, k)."""
    m, i = chunks.m, chunks.span.size
    both = torch.bmm(chunks.dstack[:, :i], chunks.stack.mT)
    dscores = both[..., :i].masked_fill_(m.seen == 0, 0)  # not a product: what nobody sees may be infinite
    dq = both[..., i:]
    dk = torch.bmm(chunks.stack[:, :i], chunks.dstack[:, i:].mT)
    if m.enter is not None and m.leave is not None:
        dq.mul_(m.enter)
        dk.mul_(m.leave)
    return torch.baddbmm(dq, dscores, chunks.k, out=dq), torch.baddbmm(dk, dscores.mT, chunks.q, out=dk)
