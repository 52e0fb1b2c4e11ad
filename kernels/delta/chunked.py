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

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.delta import chunks
from kernels.delta.chunks import Layout
from kernels.delta.reference import start
from kernels.delta.transport import transport, transport_flops
from kernels.delta.triangular import inverse_flops, solve
from kernels.dtypes import wide

CHUNK = 32  # on a CPU 15-25 % faster than 64


class Inside(NamedTuple):
    """What `delta` needs of the decays and products inside chunks."""

    p: Tensor  # (n, c, c)
    a: Tensor  # (n, c, c), its upper triangle still to be removed
    queries: Tensor  # (n, c, k): Q e^G
    keys: Tensor  # (n, c, k): beta K e^G
    writers: Tensor  # (n, c, k): K e^(G_c - G)
    keep: Tensor | None  # (n, 1, k or 1): e^(G_c); None = 1

    def within(self, docs: chunks.Documents) -> "Inside":
        """The same where new documents begin: pairs and the state stay inside of theirs."""
        keep = docs.whole if self.keep is None else self.keep * docs.whole
        pairs = (self.p * docs.same, self.a * docs.same)
        return Inside(*pairs, self.queries * docs.first, self.keys * docs.first, self.writers * docs.last, keep)


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
    layout, s = Layout.of(v, chunk or CHUNK), start(state, k, v)
    qs, ks, vs, strength = (layout.split(wide(x)) for x in (q, k, v, beta[..., None]))
    inside = _inside(qs, ks, strength, None if g is None else layout.split(wide(g)))
    if reset is not None:
        inside = inside.within(chunks.documents(reset, layout, s.dtype))
    solved = solve(inside.a.tril(-1), torch.cat([inside.keys, vs * strength], -1))
    w, u = solved.split([k.shape[-1], v.shape[-1]], -1)
    keep = None if inside.keep is None else inside.keep.mT
    y, o, s = chunks.scan(layout, s, keep, torch.cat([-w, inside.queries], 1), u, inside.writers, None)
    return layout.merge(torch.baddbmm(o, inside.p, y)).to(v.dtype), s


def _inside(q: Tensor, k: Tensor, beta: Tensor, g: Tensor | None) -> Inside:
    kb = k * beta
    if g is not None and g.ndim == 3:
        scores, rows, columns, keep = transport(torch.stack([q, kb], 2), k[:, :, None], g)
        p, a = scores[:, :, :, 0].unbind(1)
        queries, keys = rows.unbind(2)
        return Inside(p, a, queries, keys, columns[:, :, 0], keep)
    p, a = (torch.cat([q, kb], 1) @ k.mT).chunk(2, 1)
    if g is None:
        return Inside(p.tril(), a, q, kb, k, None)
    between, before, after, keep = chunks.pairs(g)
    return Inside(p * between, a * between, q * before, kb * before, k * after, keep)


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
    layout, s = Layout.of(v, chunk or CHUNK), start(state, k, v)
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
    readers, u = solved.split([k.shape[-1], v.shape[-1]], -1)
    y, o, s = chunks.scan(layout, s, keep.mT, torch.cat([readers, queries], 1), u, writers[1], writers[0].mT @ vs)
    return layout.merge(torch.baddbmm(o, p, torch.cat([vs, y], 1))).to(v.dtype), s


def delta_flops(length: int, heads: int, k: int, v: int, *, vector: bool, chunk: int | None = None) -> int:
    """FLOPs that FlopCounterMode counts in `delta`."""
    layout = Layout.sized(1, length, heads, chunk or CHUNK)
    c = layout.c
    scores = transport_flops(c, 2, 1, k) if vector else 2 * (2 * c) * c * k
    solved = inverse_flops(c) + 2 * c * c * (k + v)
    return layout.n * heads * (scores + solved + chunks.scan_flops(c, k, v) + 2 * c * c * v)


def dplr_flops(length: int, heads: int, k: int, v: int, *, chunk: int | None = None) -> int:
    """FLOPs that FlopCounterMode counts in `dplr`."""
    layout = Layout.sized(1, length, heads, chunk or CHUNK)
    c = layout.c
    solved = 2 * c * c * v + inverse_flops(c) + 2 * c * c * (k + v)
    return layout.n * heads * (transport_flops(c, 2, 2, k) + solved + chunks.scan_flops(c, k, v) + 2 * c * k * v + 2 * c * 2 * c * v)
