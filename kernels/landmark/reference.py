"""The definition: one query and head at a time, and only the keys it sees."""

import torch
from torch import Tensor

from kernels.dtypes import wide

Block = tuple[list[int], int]  # the regular keys of a closed block, and its landmark


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
    q, k, v, dtype = wide(q), wide(k), wide(v), q.dtype
    scale = e**-0.5 if scale is None else scale
    marks = landmarks.tolist()
    runs = [[0] * s] * b if documents is None else documents.tolist()
    rows = []
    for row in range(b):
        for i in range(s - t, s):
            own, past = _blocks(i, marks[row], runs[row])
            for head in range(h):
                keys, values = k[row, :, head * m // h], v[row, :, head * m // h]
                rows.append(_mix(q[row, i - s + t, head][None] * scale, keys, values, own, past, top_k))
    return torch.stack(rows).reshape(b, t, h, v.shape[-1]).to(dtype)


def _blocks(i: int, marks: list[bool], runs: list[int]) -> tuple[list[int], list[Block]]:
    """The regular keys of query i's own block up to i, and the closed blocks of its document before it."""
    own: list[int] = []
    past: list[Block] = []
    for j in range(i + 1):
        if runs[j] != runs[i] or runs[i] < 0:
            continue
        if not marks[j]:
            own.append(j)
        elif j < i:
            past.append((own, j))
            own = []
    return own, past


def _mix(q: Tensor, k: Tensor, v: Tensor, own: list[int], past: list[Block], top_k: int | None) -> Tensor:
    """q (1, e), k (s, e), v (s, f) -> (f)."""
    scores = q @ k[[mark for _, mark in past]].T  # (1, blocks)
    if top_k is not None and top_k < len(past):
        chosen = scores[0].sort(descending=True, stable=True).indices[:top_k].sort().values
        past, scores = [past[c] for c in chosen.tolist()], scores[:, chosen]
    if not own and not past:
        return (q.sum() + v.sum()) * 0 + v.new_zeros(v.shape[-1])
    main = torch.cat([q @ k[own].T, scores], 1).softmax(1)
    out = main[:, : len(own)] @ v[own]
    for c, (keys, _) in enumerate(past):
        inside = (q @ k[keys].T).softmax(1)
        out = out + main[:, len(own) + c, None] * (inside @ v[keys])
    return out[0]
