"""Scores inside chunks without a decay, or with one a head: exp of a difference of sums, taken in float64, masks the products."""

import torch
from torch import Tensor

from kernels.delta.chunks import Buffers, Documents
from kernels.dtypes import LOG2E

FLOOR = -115.0  # in powers of two: what is left of a state there is below every rounding, and no denormal slows exp2 down


def triangle(c: int, diagonal: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(c, c) of ones on and below the diagonal."""
    return torch.ones(c, c, dtype=dtype, device=device).tril(diagonal)


class Scalar:
    """What `walk` needs, from rows (n, 2 c, k) = [q; a], keys (n, c, k) and log decays g (n, c), None = 0.

    a reads the state after its own token's decay, but not what its own token writes.
    """

    def __init__(self, rows: Tensor, keys: Tensor, g: Tensor | None, docs: Documents | None, buffers: Buffers) -> None:
        n, c, k = keys.shape
        self.rows, self.keys = rows, keys
        self.pairs, self.before, self.after, self.keep = _decays(g, docs, triangle(c, 0, keys.dtype, keys.device))
        self.gated = g is not None
        self.scores = torch.bmm(rows, keys.mT, out=buffers("scores", n, 2 * c, c))
        self.scores.view(n, 2, c, c).mul_(self.pairs)
        self.read, self.writers = rows, keys
        if self.before is not None and self.after is not None:
            self.read = buffers("read", n, 2 * c, k)
            torch.mul(rows.view(n, 2, c, k), self.before[:, None], out=self.read.view(n, 2, c, k))
            self.writers = torch.mul(keys, self.after, out=buffers("writers", n, c, k))

    def backward(self, d_read: Tensor, d_scores: Tensor, d_writers: Tensor, d_keep: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gradients of rows, keys and g from those of read, scores and writers, all overwritten, and of keep (n, k)."""
        n, c, k = self.keys.shape
        dg = None if d_keep is None else self._gate(d_read, d_scores, d_writers, d_keep)
        d_scores.view(n, 2, c, c).mul_(self.pairs)
        d_scores[:, c:].diagonal(dim1=1, dim2=2).zero_()
        if self.before is not None and self.after is not None:
            d_read.view(n, 2, c, k).mul_(self.before[:, None])
            d_writers.mul_(self.after)
        d_rows = torch.baddbmm(d_read, d_scores, self.keys, out=d_read)
        return d_rows, torch.baddbmm(d_writers, d_scores.mT, self.rows, out=d_writers), dg

    def _gate(self, d_read: Tensor, d_scores: Tensor, d_writers: Tensor, d_keep: Tensor) -> Tensor:
        """A decay acts on the pairs that it lies between, on reads after it, on writes before it and on the whole."""
        n, c, k = self.keys.shape
        pairs = torch.mul(d_scores, self.scores).view(n, 2, c, c).sum(1)
        across = pairs @ triangle(c, -1, pairs.dtype, pairs.device).mT.contiguous()  # to i from all j before each token
        between = across.tril().sum(1)
        read = torch.mul(d_read, self.read).view(n, 2, c, k).sum((1, 3))
        written = torch.mul(d_writers, self.writers).sum(2)
        whole = (d_keep * self.keep[:, :, 0]).sum(1, keepdim=True) if self.keep is not None else 0
        later = read.flip(1).cumsum(1).flip(1)
        between[:, 1:] += written.cumsum(1)[:, :-1]  # apart: what the last tokens write undecayed would drown the rest
        return between + later + whole


def _decays(g: Tensor | None, docs: Documents | None, seen: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Factors on pairs (n or 1, 1, c, c), on reads of the state before, on writes to the one after (n, c, 1), on the state (n, 1, 1)."""
    if g is None:
        if docs is None:
            return seen[None, None], None, None, None
        return (docs.same * seen)[:, None], docs.first, docs.last, docs.whole
    total = (g.double() * LOG2E).cumsum(1)
    pairs = (total[:, :, None] - total[:, None, :]).to(g.dtype).clamp_(FLOOR, 0).exp2_().mul_(seen)
    before, after = (x.to(g.dtype).clamp_(min=FLOOR).exp2_()[..., None] for x in (total, total[:, -1:] - total))
    keep = before[:, -1:]
    if docs is not None:
        pairs, before, after, keep = pairs * docs.same, before * docs.first, after * docs.last, keep * docs.whole
    return pairs[:, None], before, after, keep


def scalar_flops(c: int, k: int) -> int:
    """FLOPs of one system's scores."""
    return 2 * (2 * c) * c * k
