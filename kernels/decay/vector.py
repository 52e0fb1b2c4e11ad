"""Tiles with a decay for each key channel, exact for any decay: no exponent is ever large and positive, nothing is divided.

The score of tokens j <= i, sum_k q_ik k_jk exp(g_j+1 + .. + g_i)_k, has no common factor to take out, but a block of rows
that lies wholly after a block of columns has: with r at the border between them, exp(G_i - r) goes to the queries and
exp(r - G_j) to the keys, both <= 1. So a tile is halved again and again, and each lower-left quarter is one matrix product
(the secondary chunks of arXiv:2312.06635, made dyadic). `reach` and `rest` are built bottom up by sums of terms of one sign,
so no digit is lost. The halving ends at the blocks (leaves) that decay so little that they may be factored at their middle:
often the whole tile, at the latest a single token.
"""

import torch
from torch import Tensor

from kernels.decay.tiles import Within
from kernels.dtypes import LOG2E

MILD = 50.0  # a leaf decays by at most 2^-50, so that its factors, at most 2^25, lose nothing in float32


def within(q: Tensor, k: Tensor, v: Tensor, g: Tensor, bonus: Tensor | None, segment: Tensor | None) -> Within:
    """q, k, g (b, c, h, i, k); v (b, c, h, i, 1, v); bonus (h, 1, k); segment (b, c, i)."""
    scores, reach, rest, total = _scores(q, k, g * LOG2E, strict=bonus is not None)
    if segment is not None:
        scores = scores * (segment[..., :, None] == segment[..., None, :])[:, :, None]
    inner = scores @ v[..., 0, :]
    if bonus is not None:
        inner = inner + (q * k * bonus).sum(-1, keepdim=True) * v[..., 0, :]
    enter, leave, carry = reach.exp2(), rest.exp2(), total.exp2()
    if segment is not None:
        started, last = segment[:, :, None, :, None], segment[:, :, None, -1:, None]
        enter, leave, carry = enter * (started == 0), leave * (started == last), carry * (last == 0)
    return Within(inner[..., None, :], q * enter, None, k * leave, v, carry.mT[..., None])


def mild_leaf(g: Tensor) -> int:
    """Tokens of the largest leaf that is mild in every channel of these decays (powers of 2); a meta tensor has none to look at."""
    leaf, decays = g.shape[-2], g.detach()
    while leaf > 1 and not g.is_meta and bool(decays.unflatten(-2, (-1, leaf)).sum(-2).amin() < -MILD):
        leaf = max(leaf // 4, 1)
    return leaf


def _scores(q: Tensor, k: Tensor, g: Tensor, *, strict: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores (..., i, j), and of the decays (in powers of 2) reach: from the tile's start to each row, rest: from each
    column to the tile's end, total: of the whole tile (..., 1, k). strict: a row reads the state before its own decay and write."""
    leaf = mild_leaf(g)
    q, k, g = (x.unflatten(-2, (-1, leaf)) for x in (q, k, g))  # (..., m, leaf, k)
    through = g.cumsum(-2)
    total = through[..., -1:, :]
    zero = torch.zeros_like(total)
    reach = torch.cat([zero, through[..., :-1, :]], -2) if strict else through
    rest = torch.cat([g[..., 1:, :].flip(-2).cumsum(-2).flip(-2), zero], -2)
    if leaf > 1:
        middle = total.detach() / 2
        scores = (q * (reach - middle).exp2()) @ (k * (middle - through).exp2()).mT
    else:  # a token sees itself undecayed
        scores = q @ k.mT
    scores = scores.tril(-1 if strict else 0)
    while total.shape[-3] > 1:
        (q1, q2), (k1, k2), (scores1, scores2) = _halves(q), _halves(k), _halves(scores)
        (reach1, reach2), (rest1, rest2), (total1, total2) = _halves(reach), _halves(rest), _halves(total)
        corner = (q2 * reach2.exp2()) @ (k1 * rest1.exp2()).mT
        scores = torch.cat([torch.cat([scores1, torch.zeros_like(scores1)], -1), torch.cat([corner, scores2], -1)], -2)
        q, k = torch.cat([q1, q2], -2), torch.cat([k1, k2], -2)
        reach, rest, total = torch.cat([reach1, reach2 + total1], -2), torch.cat([rest1 + total2, rest2], -2), total1 + total2
    return scores[..., 0, :, :], reach[..., 0, :, :], rest[..., 0, :, :], total[..., 0, :, :]


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """The even and the odd blocks of (..., m, size, k)."""
    first, second = x.unflatten(-3, (-1, 2)).unbind(-3)
    return first, second
