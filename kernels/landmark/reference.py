"""The definition: one query at a time, and only the keys it sees."""

import torch
from torch import Tensor

from kernels.dtypes import wide

Block = tuple[slice, int]  # the regular keys of a closed block, and its landmark


def landmark(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    landmarks: Tensor,
    *,
    documents: Tensor | None = None,
    top_k: int | None = None,
    scale: float | None = None,
) -> Tensor:
    (b, t, h, e), (s, m) = q.shape, k.shape[1:3]
    queries = wide(q) * (e**-0.5 if scale is None else scale)
    keys, values = (wide(x).repeat_interleave(h // m, 2).transpose(1, 2) for x in (k, v))  # (b, h, s, e or f)
    marks = landmarks.tolist()
    runs = [[0] * s] * b if documents is None else documents.tolist()
    out = []
    for row in range(b):
        for i in range(s - t, s):
            own, past = _blocks(i, marks[row], runs[row])
            out.append(_read(queries[row, i - s + t, :, None], keys[row], values[row], own, past, top_k))
    return torch.stack(out).view(b, t, h, -1).to(q.dtype)


def _blocks(i: int, marks: list[bool], runs: list[int]) -> tuple[slice, list[Block]]:
    """The regular keys of query i's own block up to i, and the closed blocks of its document before it."""
    start = runs.index(runs[i]) if runs[i] >= 0 else i + 1
    past: list[Block] = []
    for j in range(start, i):
        if marks[j]:
            past.append((slice(start, j), j))
            start = j + 1
    return slice(start, max(start, i + 1 - marks[i])), past


def _read(q: Tensor, k: Tensor, v: Tensor, own: slice, past: list[Block], top_k: int | None) -> Tensor:
    """q (h, 1, e), k (h, s, e), v (h, s, f) -> (h, f)."""
    marks = [mark for _, mark in past]
    scores = q @ k[:, marks].mT  # (h, 1, blocks)
    if top_k is None or top_k >= len(past):
        return _mix(q, k, v, scores, own, past)
    heads = []
    for head in range(q.shape[0]):
        chosen = scores[head, 0].sort(descending=True, stable=True).indices[:top_k].sort().values.tolist()
        one = slice(head, head + 1)
        heads.append(_mix(q[one], k[one], v[one], scores[one, :, chosen], own, [past[c] for c in chosen]))
    return torch.cat(heads)


def _mix(q: Tensor, k: Tensor, v: Tensor, scores: Tensor, own: slice, past: list[Block]) -> Tensor:
    """The grouped softmax over the query's own block and the blocks `past` of landmark scores (h, 1, blocks)."""
    if own.start == own.stop and not past:
        return v[:, 0] * 0
    near, *far = torch.cat([q @ k[:, own].mT, scores], 2).softmax(2).split([own.stop - own.start] + [1] * len(past), 2)
    out = near @ v[:, own]
    for main, (keys, _) in zip(far, past, strict=True):
        inside = (q @ k[:, keys].mT).softmax(2)
        out = out + main * (inside @ v[:, keys])
    return out[:, 0]
