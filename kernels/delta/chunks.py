"""Pieces that the chunked forms of `delta` and `dplr` share: layout, decays without a positive exponent, the pass over chunks.

A *system* is one chunk of one head of one row; systems are ordered (chunk, batch, head), so that the pass over chunks reads
contiguous slices, and all that doesn't need the state runs as one batched matmul over all systems.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.delta.transport import MIN_LOG_DECAY


class Layout(NamedTuple):
    """b batch, t time, h heads, n chunks of c tokens (the last one padded)."""

    b: int
    t: int
    h: int
    n: int
    c: int

    @staticmethod
    def of(x: Tensor, chunk: int) -> "Layout":
        """x (b, t, h, ...) in chunks of at most `chunk` tokens."""
        b, t, h, *_ = x.shape
        return Layout.sized(b, t, h, chunk)

    @staticmethod
    def sized(b: int, t: int, h: int, chunk: int) -> "Layout":
        if chunk < 1 or chunk & (chunk - 1):
            raise ValueError(f"chunk = {chunk}: must be a power of two")
        c = min(chunk, 1 << (t - 1).bit_length())
        return Layout(b, t, h, -(-t // c), c)

    def split(self, x: Tensor) -> Tensor:
        """(b, t, h, ...) -> (n * b * h, c, ...), the tail padded with 0."""
        x = F.pad(x, [0, 0] * (x.ndim - 2) + [0, self.n * self.c - self.t])
        x = x.reshape(self.b, self.n, self.c, *x.shape[2:])
        return x.permute(1, 0, 3, 2, *range(4, x.ndim)).reshape(-1, self.c, *x.shape[4:])

    def merge(self, x: Tensor) -> Tensor:
        """(n * b * h, c, v) -> (b, t, h, v)."""
        x = x.reshape(self.n, self.b, self.h, self.c, -1).permute(1, 0, 3, 2, 4)
        return x.reshape(self.b, self.n * self.c, self.h, -1)[:, : self.t]


class Documents(NamedTuple):
    """Which pairs of a chunk may meet, where new documents begin inside of it. All float, one row a system."""

    same: Tensor  # (n, c, c): both tokens are of one document
    first: Tensor  # (n, c, 1): the token is of the document that the chunk begins in: it sees the state before
    last: Tensor  # (n, c, 1): the token is of the document that the chunk ends in: it is seen by the state after
    whole: Tensor  # (n, 1, 1): no document begins inside the chunk: the state before is part of the state after


def documents(reset: Tensor, layout: Layout, dtype: torch.dtype) -> Documents:
    """reset (b, t) bool -> the masks of every system."""
    run = layout.split(reset[:, :, None].expand(-1, -1, layout.h)).cumsum(1)[..., None]
    end = run[:, -1:]
    return Documents((run == run.mT).to(dtype), (run == 0).to(dtype), (run == end).to(dtype), (end == 0).to(dtype))


def pairs(log_decay: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A scalar decay inside chunks. log_decay (n, c) -> exp of its sum from j + 1 to i, for all j <= i (0 elsewhere) (n, c, c);
    over tokens up to and with i (n, c, 1); after i (n, c, 1); over the chunk (n, 1, 1).

    Sums in float64: a weak decay after strong ones is a small difference of large numbers.
    """
    total = log_decay.double().cumsum(1)
    end = total[:, -1:]
    between = (total[:, :, None] - total[:, None, :]).clamp(MIN_LOG_DECAY, 0).to(log_decay.dtype).exp().tril()
    before = total.clamp_min(MIN_LOG_DECAY).to(log_decay.dtype).exp()
    after = (end - total).clamp_min(MIN_LOG_DECAY).to(log_decay.dtype).exp()
    return between, before[..., None], after[..., None], before[:, -1:, None]


def scan(
    layout: Layout, state: Tensor, keep: Tensor | None, readers: Tensor, given: Tensor, writers: Tensor, written: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Carry the state over the chunks. state (b, h, k, v). A system, with S the state before it:

    [y, o] = [given, 0] + readers S, readers (2 c, k); S' = keep S + written + writers^T y.

    Returns y and o (n * b * h, c, v) and the last state.
    """
    c, systems = layout.c, layout.b * layout.h
    s = state.reshape(systems, *state.shape[2:])
    per_chunk = [x.unflatten(0, (layout.n, systems)).unbind(0) for x in (readers, given, writers)]
    keeps = [None] * layout.n if keep is None else keep.unflatten(0, (layout.n, systems)).unbind(0)
    extras = [None] * layout.n if written is None else written.unflatten(0, (layout.n, systems)).unbind(0)
    values, read = [], []
    for reader, value, writer, kept, extra in zip(*per_chunk, keeps, extras, strict=True):
        corrected, o = (reader @ s).split(c, 1)
        y = value + corrected
        base = s if kept is None else s * kept
        s = torch.baddbmm(base if extra is None else base + extra, writer.mT, y)
        values.append(y)
        read.append(o)
    return torch.cat(values), torch.cat(read), s.reshape(state.shape)


def scan_flops(c: int, k: int, v: int) -> int:
    """FLOPs of `scan` a system."""
    return 2 * (2 * c) * k * v + 2 * c * k * v
