"""Blocks of queries: their scores against all keys before them as one matmul, then the chosen keys gathered for a second one."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.attention.visible import Sight, seen
from kernels.dtypes import wide

ROWS = 64  # queries a block
UNSEEN = -1e30  # the score of a place that no key fills


def select(index_q: Tensor, index_k: Tensor, weights: Tensor, view: Sight, *, top_k: int) -> Tensor:
    index_q, index_k, weights = wide(index_q), wide(index_k), wide(weights)
    index = torch.arange(view.s, device=index_q.device)
    chosen = torch.full((*index_q.shape[:2], top_k), -1, device=index_q.device)
    for start, stop, reach in blocks(view.t, view.s):
        products = (index_q[:, start:stop].flatten(1, 2) @ index_k[:, :reach].mT).relu_()
        scores = (weights[:, start:stop, None] @ products.unflatten(1, (stop - start, -1)))[:, :, 0]
        visible = seen(view, index[None, start:stop], index[None, None, :reach])[:, 0].expand_as(scores)
        ranked = scores.masked_fill(~visible, -torch.inf).argsort(dim=-1, stable=True).flip(-1)[..., :top_k]
        chosen[:, start:stop, : ranked.shape[-1]] = ranked.where(visible.gather(-1, ranked), -1)
    return chosen


def indexed(q: Tensor, keys: Tensor, chosen: Tensor, *, value_dim: int, scale: float) -> Tensor:
    b, s, e = keys.shape
    table, first = keys.reshape(b * s, e), s * torch.arange(b, device=keys.device)[:, None, None]
    out = []
    for start, stop, reach in blocks(q.shape[1], s):
        own = chosen[:, start:stop, :reach]
        mine = F.embedding(own.clamp(min=0) + first, table)  # (b, rows, chosen, e); its gradient is summed in a fixed order
        scores = wide(q[:, start:stop] @ mine.mT) * scale  # (b, rows, h, chosen)
        there = (own >= 0)[:, :, None]
        p = scores.masked_fill(~there, UNSEEN).softmax(-1) * there
        out.append(p.to(mine.dtype) @ mine[..., :value_dim])
    return torch.cat(out, 1).to(q.dtype)


def blocks(t: int, s: int) -> list[tuple[int, int, int]]:
    """Queries start:stop of t, the last of s, and how many keys there are before the last of them, itself included."""
    return [(start, min(start + ROWS, t), s - t + min(start + ROWS, t)) for start in range(0, t, ROWS)]


def executed_select_flops(length: int, heads: int, width: int) -> int:
    """Of one document read at once."""
    return 2 * heads * (width + 1) * sum((stop - start) * reach for start, stop, reach in blocks(length, length))


def executed_flops(length: int, heads: int, key: int, value: int, top_k: int) -> int:
    """Of one document read at once."""
    pairs = sum((stop - start) * min(reach, top_k) for start, stop, reach in blocks(length, length))
    return 2 * heads * (key + value) * pairs
