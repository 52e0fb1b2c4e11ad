"""Whole chunks at a time: the WY / UT form (DeltaNet, arXiv:2406.06484; Gated DeltaNet, arXiv:2412.06464; RWKV-7, arXiv:2503.14456).

With G the sum of log decays from the chunk's start, S the state before it and (i, j) two of its tokens:

    delta   Y = (I + A)^-1 (beta V - (beta K e^G) S),  A_ij = beta_i sum_d k_id k_jd e^(G_id - G_jd)  (j < i)
            O = (Q e^G) S + P Y,                       P_ij = sum_d q_id k_jd e^(G_id - G_jd)         (j <= i)
            S' = e^(G_c) S + (K e^(G_c - G))^T Y
    dplr    Y = (I - A_ab)^-1 (A_ak V + (a e^(G - w)) S), A_ab and A_ak like P but with a_i e^(-w_i) in q's place (j < i)
            O = (Q e^G) S + P_qk V + P_qb Y
            S' = e^(G_c) S + (K e^(G_c - G))^T V + (B e^(G_c - G))^T Y

`a_i` reads the state after token i - 1, so it is scored as a second query of that token and its row moved down by one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.delta import chunks
from kernels.delta.chunks import Layout
from kernels.delta.transport import transport, transport_flops
from kernels.delta.triangular import inverse_flops, solve
from kernels.dtypes import wide

CHUNK = 64


def _start(state: Tensor | None, k: Tensor, v: Tensor) -> Tensor:
    b, _, h, width = k.shape
    return wide(v.new_zeros(b, h, width, v.shape[-1]) if state is None else state)


def delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    beta: Tensor,
    state: Tensor | None = None,
    *,
    reset: Tensor | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    layout = Layout.of(*q.shape[:3], chunk or CHUNK)
    s, c = _start(state, k, v), layout.c
    qs, ks, vs, bs = (layout.split(wide(x)) for x in (q, k, v, beta))
    bs = bs[..., None]
    score_queries, score_keys, queries, keys, writers, keep = _delta_scores(qs, ks, bs, None if g is None else layout.split(wide(g)))
    a = score_keys.tril(-1)
    if reset is not None:
        docs = chunks.documents(reset, layout, s.dtype)
        a, score_queries = a * docs.same, score_queries * docs.same
        keys, queries, writers = keys * docs.first, queries * docs.first, writers * docs.last
        keep = docs.whole if keep is None else keep * docs.whole
    solved = solve(a, torch.cat([keys, vs * bs], -1))
    w, u = solved.split([k.shape[-1], v.shape[-1]], -1)
    y, o, s = chunks.scan(layout, s, None if keep is None else keep.mT, torch.cat([-w, queries], 1), u, writers, None)
    return layout.merge(torch.baddbmm(o, score_queries, y)).to(v.dtype), s


def _delta_scores(q: Tensor, k: Tensor, beta: Tensor, g: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """P, A (its upper triangle not yet removed), Q e^G, beta K e^G, K e^(G_c - G), e^(G_c)."""
    kb = k * beta
    if g is not None and g.ndim == 3:
        scores, rows, columns, keep = transport(torch.stack([q, kb], 2), k[:, :, None], g)
        return *scores[:, :, :, 0].unbind(1), *rows.unbind(2), columns[:, :, 0], keep
    p, a = (torch.cat([q, kb], 1) @ k.mT).split(q.shape[1], 1)
    if g is None:
        return p.tril(), a, q, kb, k, None
    between, before, after, keep = chunks.pairs(g)
    return p * between, a * between, q * before, kb * before, k * after, keep


def dplr(
    q: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor | None = None,
    *,
    reset: Tensor | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    layout = Layout.of(*q.shape[:3], chunk or CHUNK)
    s, width = _start(state, k, v), k.shape[-1]
    qs, ks, vs, a_s, bs, ws = (layout.split(wide(x)) for x in (q, k, v, a, b, w))
    ahead = F.pad(a_s[:, 1:], [0, 0, 0, 1])
    scores, rows, columns, keep = transport(torch.stack([qs, ahead], 2), torch.stack([ks, bs], 2), ws)
    p, ahead_scores = scores.flatten(3).unbind(1)  # (n, c, 2 c): [P_qk | P_qb]
    later = F.pad(ahead_scores[:, :-1], [0, 0, 1, 0])  # [A_ak | A_ab]
    queries, ahead_rows = rows.unbind(2)
    readers = torch.cat([a_s[:, :1], ahead_rows[:, :-1]], 1)
    writers = columns.unbind(2)
    if reset is not None:
        docs = chunks.documents(reset, layout, s.dtype)
        same = docs.same.repeat(1, 1, 2)
        p, later = p * same, later * same
        queries, readers = queries * docs.first, readers * docs.first
        writers, keep = tuple(x * docs.last for x in writers), keep * docs.whole
    ak, ab = later.chunk(2, -1)
    solved = solve(-ab, torch.cat([readers, ak @ vs], -1))
    readers, u = solved.split([width, v.shape[-1]], -1)
    y, o, s = chunks.scan(layout, s, keep.mT, torch.cat([readers, queries], 1), u, writers[1], writers[0].mT @ vs)
    return layout.merge(torch.baddbmm(o, p, torch.cat([vs, y], 1))).to(v.dtype), s


def delta_flops(length: int, heads: int, k: int, v: int, *, vector: bool, chunk: int | None = None) -> int:
    """FLOPs that FlopCounterMode counts in `delta`."""
    layout = Layout.of(1, length, heads, chunk or CHUNK)
    c = layout.c
    scores = transport_flops(c, 2, 1, k) if vector else 2 * (2 * c) * c * k
    solved = inverse_flops(c) + 2 * c * c * (k + v)
    return layout.n * heads * (scores + solved + chunks.scan_flops(c, k, v) + 2 * c * c * v)


def dplr_flops(length: int, heads: int, k: int, v: int, *, chunk: int | None = None) -> int:
    """FLOPs that FlopCounterMode counts in `dplr`."""
    layout = Layout.of(1, length, heads, chunk or CHUNK)
    c = layout.c
    solved = 2 * c * c * v + inverse_flops(c) + 2 * c * c * (k + v)
    return layout.n * heads * (transport_flops(c, 2, 2, k) + solved + chunks.scan_flops(c, k, v) + 2 * c * k * v + 2 * c * 2 * c * v)
