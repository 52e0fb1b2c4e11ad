"""The selective scan of a piece, chunk by chunk in buffers that stay in cache, with a backward that recomputes each chunk.

Time is first here and channels are last: x, dt (t, b, c), A (n, c), B, C (t, b, n), states (b, n, c), keep (t, b, 1, 1).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from kernels.dtypes import LOG2E
from kernels.linear_scan.walk import walk


class Piece(NamedTuple):
    """What a scan reads, of a whole piece or of one chunk of it."""

    x: Tensor  # (t, b, c)
    dt: Tensor  # (t, b, c)
    B: Tensor  # (t, b, n)
    C: Tensor  # (t, b, n)
    keep: Tensor | None  # (t, b, 1, 1): a factor of the decays, 0 at the first token of a document; None = one

    def part(self, tokens: slice) -> "Piece":
        return Piece(*(None if i is None else i[tokens] for i in self))  # type: ignore[arg-type]


class SelectiveScan(torch.autograd.Function):
    """(x, dt, B, C, A, start, keep, chunk, save) -> y (t, b, c), the last state (b, n, c). save = False keeps nothing for a backward."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        dt: Tensor,
        B: Tensor,
        C: Tensor,
        A: Tensor,
        start: Tensor,
        keep: Tensor | None,
        chunk: int,
        save: bool,
    ) -> tuple[Tensor, Tensor]:
        piece, y, h = Piece(x, dt, B, C, keep), torch.empty_like(x), start
        a, states = x.new_empty(2, min(chunk, x.shape[0]), *start.shape).unbind(0)
        starts = []
        with torch.autocast(x.device.type, enabled=False):
            for i in range(0, x.shape[0], chunk):
                part = piece.part(slice(i, i + chunk))
                q = part.x.shape[0]
                if save:
                    starts.append(h)
                h = fill(part, A, h, a[:q], states[:q]).clone()
                torch.matmul(part.C[:, :, None], states[:q], out=y[i : i + q, :, None])
        ctx.save_for_backward(*piece, A, *starts)  # type: ignore[arg-type]
        ctx.chunk = chunk  # type: ignore[attr-defined]
        return y, h

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dy: Tensor, dh: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, A = ctx.saved_tensors[:6]  # type: ignore[attr-defined]
        starts, chunk, piece = ctx.saved_tensors[6:], ctx.chunk, Piece(*inputs)  # type: ignore[attr-defined]
        grads, dA = [torch.empty_like(i) for i in piece[:4]], torch.zeros_like(A)
        buffers = dy.new_empty(3, min(chunk, dy.shape[0]), *dh.shape)
        with torch.autocast(dy.device.type, enabled=False):
            for j, start in reversed(list(enumerate(starts))):
                tokens = slice(j * chunk, (j + 1) * chunk)
                dh = chunk_backward(piece.part(tokens), A, start, dy[tokens], dh, [i[tokens] for i in grads], dA, buffers)
        return *grads, dA, dh, None, None, None


def fill(piece: Piece, A: Tensor, start: Tensor, a: Tensor, states: Tensor) -> Tensor:
    """Write the decays into a and the states into states (both (t, b, n, c)); returns the last state, a view of it."""
    torch.mul(piece.dt[:, :, None], A * LOG2E, out=a).exp2_()
    if piece.keep is not None:
        a *= piece.keep
    torch.mul((piece.dt * piece.x)[:, :, None], piece.B[..., None], out=states)
    return walk(a.unbind(0), states.unbind(0), start)


def chunk_backward(
    piece: Piece, A: Tensor, start: Tensor, dy: Tensor, dh: Tensor, grads: list[Tensor], dA: Tensor, buffers: Tensor
) -> Tensor:
    """One chunk, from the gradient dh (b, n, c) of its last state to that of its first, which is returned.

    grads: where to write the chunk's gradients of x, dt, B, C; dA is added to; buffers (3, t, b, n, c) are overwritten.
    """
    a, states, dstates = buffers[:, : dy.shape[0]].unbind(0)
    dx, ddt, dB, dC = grads
    x, dt = piece.x, piece.dt
    fill(piece, A, start, a, states)
    torch.mul(piece.C[..., None], dy[:, :, None], out=dstates)
    dstates[-1] += dh
    walk(reversed(a.unbind(0)[1:]), reversed(dstates.unbind(0)[:-1]), dstates[-1])
    dC.copy_((states @ dy[..., None])[..., 0])
    dB.copy_((dstates @ (dt * x)[..., None])[..., 0])
    dinput = (piece.B[:, :, None] @ dstates)[:, :, 0]
    torch.mul(dinput, dt, out=dx)
    first = a[0] * dstates[0]
    dlog = dstates.mul_(a)  # the gradient of the log decay, dt A: dh_t a_t h_{t-1}
    dlog[1:] *= states[:-1]
    dlog[0] *= start
    torch.addcmul(torch.mul(dlog, A, out=a).sum(2), dinput, x, out=ddt)
    dA += torch.mul(dlog, dt[:, :, None], out=a).sum((0, 1))
    return first
