"""The definition: one query at a time, over exactly the keys that it sees, then over exactly those it chose."""

import torch
from torch import Tensor

from kernels.attention.visible import Sight, seen
from kernels.dtypes import wide


def select(index_q: Tensor, index_k: Tensor, weights: Tensor, view: Sight, *, top_k: int) -> Tensor:
    index = torch.arange(view.s, device=index_q.device)
    visible = seen(view, index[None, : view.t], index[None, None])[:, 0].expand(index_q.shape[0], -1, -1)
    chosen = torch.full((*index_q.shape[:2], top_k), -1, device=index_q.device)
    for row in range(chosen.shape[0]):
        for i in range(chosen.shape[1]):
            candidates = visible[row, i].nonzero().squeeze(1)
            products = wide(index_q[row, i]) @ wide(index_k[row, candidates]).T  # (n, candidates)
            scores = (wide(weights[row, i])[None] @ products.relu())[0]
            best = candidates[scores.argsort(stable=True).flip(0)[:top_k]]
            chosen[row, i, : len(best)] = best
    return chosen


def indexed(q: Tensor, keys: Tensor, chosen: Tensor, *, value_dim: int, scale: float) -> Tensor:
    out = []
    for row, own in enumerate(chosen):
        for i, found in enumerate(own):
            mine = wide(keys[row, found[found >= 0]])  # (chosen, e)
            p = (wide(q[row, i]) @ mine.T * scale).softmax(-1)
            out.append(p @ mine[:, :value_dim])
    return torch.stack(out).unflatten(0, q.shape[:2]).to(q.dtype)
