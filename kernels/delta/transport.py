"""Scores inside a chunk under a decay per channel, exact for any decay: dyadic secondary chunking in products of decays.

Blocks of 1, 2, 4, ... tokens are joined in pairs. In a block, rows carry the decay from its start and columns the decay to
its end; the lower left square of a pair is one matmul of the right block's rows with the left block's columns. Only decays
are ever multiplied, each <= 1: nothing overflows, and no difference of two sums loses digits. Its backward runs the levels
the other way; the gradient of a log decay is that of the sums G = cumsum(log decay): what rows get less what columns get.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

MIN_LOG_DECAY = -80.0  # exp(-80) = 2e-35: what is left of a state is below every rounding, and no denormal slows exp down


def transport(rows: Tensor, columns: Tensor, log_decay: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """rows (n, c, r, k), columns (n, c, m, k): r kinds of rows and m of columns a token; log_decay (n, c, k) <= 0; c a power of two.

    Returns scores (n, r, c, m, c): row_i . (column_j * exp of the sum of log_decay from j + 1 to i), 0 where j > i; the rows
    decayed from the chunk's start, the columns decayed to its end, the decay of the whole chunk (n, 1, k).
    """
    return _Transport.apply(rows.contiguous(), columns.contiguous(), log_decay.contiguous())


def transport_flops(c: int, r: int, m: int, k: int) -> int:
    """FLOPs of one chunk's scores: the squares below the diagonal blocks of 1 token."""
    return c * (c - 1) * r * m * k


def _halves(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The left and the right blocks of every pair: (n, c, ...) -> views (n * pairs, size, ...)."""
    x = x.view(-1, 2, size, *x.shape[2:])
    return x[:, 0], x[:, 1]


def _corners(scores: Tensor, size: int) -> Tensor:
    """The lower left squares: a view (n, r, size, m, size, pairs) of scores (n, r, c, m, c)."""
    n, r, c, m, _ = scores.shape
    pairs = c // (2 * size)
    blocks = scores.view(n, r, pairs, 2, size, m, pairs, 2, size)[:, :, :, 1, :, :, :, 0]
    return blocks.diagonal(dim1=2, dim2=5)


class _Transport(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor, log_decay: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        (n, c, r, k), m = rows.shape, columns.shape[2]
        keep = log_decay.clamp_min(MIN_LOG_DECAY).exp()
        scores = rows.new_zeros(n, r, c, m, c)
        scores.diagonal(dim1=2, dim2=4).copy_((rows[:, :, :, None] * columns[:, :, None]).sum(-1).permute(0, 2, 3, 1))
        start, end, levels, size = rows * keep[:, :, None], columns.clone(), [keep], 1
        while size < c:
            (_, right), (left, _) = _halves(start, size), _halves(end, size)
            before, after = keep.view(-1, 2, k).unbind(1)
            levels += [x.clone(memory_format=torch.contiguous_format).flatten(1, 2) for x in (right, left)]
            cross = levels[-2] @ levels[-1].mT
            _corners(scores, size).copy_(cross.view(n, -1, size, r, size, m).permute(0, 3, 2, 5, 4, 1))
            right *= before[:, None, None]
            left *= after[:, None, None]
            keep, size = before * after, 2 * size
        ctx.save_for_backward(rows, columns, end, *levels)
        return scores, start, end, keep.view(n, 1, k)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_scores: Tensor, d_start: Tensor, d_end: Tensor, d_keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, columns, end, keep, *levels = ctx.saved_tensors
        (n, c, r, k), m = rows.shape, columns.shape[2]
        keeps = [keep]
        while keeps[-1].shape[:-1].numel() > n:
            keeps.append(keeps[-1].view(-1, 2, k).prod(1))
        d_rows, d_columns, size = d_start.clone(memory_format=torch.contiguous_format), torch.zeros_like(columns), c // 2
        reach = torch.ones_like(keep)  # the decay from each token to the chunk's end
        while size:
            (_, right), (left, _) = _halves(d_rows, size), _halves(d_columns, size)
            before, after = keeps[size.bit_length() - 1].view(-1, 2, k).unbind(1)
            right_rows, left_columns = levels[2 * size.bit_length() - 2 : 2 * size.bit_length()]
            cross = _corners(d_scores, size).permute(0, 5, 2, 1, 4, 3).reshape(-1, size * r, size * m)
            right *= before[:, None, None]
            right += (cross @ left_columns).view(right.shape)
            left *= after[:, None, None]
            _halves(reach, size)[0].mul_(after[:, None])
            left += (cross.mT @ right_rows).view(left.shape)
            size //= 2
        d_rows *= keep[:, :, None]
        d_sum = (rows * d_rows).sum(2) - (columns * d_columns).sum(2)
        d_log = d_sum.flip(1).cumsum(1).flip(1) + d_keep * keeps[-1].view(n, 1, k)
        d_log[:, 1:] += (d_end * end).sum(2).cumsum(1)[:, :-1]  # apart: what the last tokens leave undecayed would drown the rest
        d_columns += d_end * reach[:, :, None]
        diagonal = d_scores.diagonal(dim1=2, dim2=4).permute(0, 3, 1, 2)  # (n, c, r, m)
        d_rows += (diagonal[..., None] * columns[:, :, None]).sum(3)
        d_columns += (diagonal[..., None] * rows[:, :, :, None]).sum(2)
        return d_rows, d_columns, d_log
