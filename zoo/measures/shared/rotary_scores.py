"""What rotary positions make of scores: plain functions of a Rope and of queries and keys, for measures and without a model.

A score at distance m is s(m) = (q turned by m) . k, turned as blocks turn them, angles in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from blocks.rope import Rope, frequencies, rotate
from zoo.tasks.shared.base import uniforms

CHUNK = 1 << 14  # distances at once


def score(q: Tensor, k: Tensor, distance: Tensor, rope: Rope) -> Tensor:
    """s(distance) of each of n pairs. q, k (n, e), distance (n,) int64 -> (n,)."""
    return (rotate(q[None, :, None], distance[None], rope)[0, :, 0] * k).sum(-1)


def locality_lost(q: Tensor, k: Tensor, near: Tensor, far: Tensor, rope: Rope) -> Tensor:
    """Whether the far key scores higher than the same key near: (n,) float64 of 0 and 1, a tie 1/2 (arXiv:2605.15514)."""
    return _below(score(q, k, near, rope) - score(q, k, far, rope))


def order_lost(q: Tensor, k: Tensor, other: Tensor, distance: Tensor, rope: Rope) -> Tensor:
    """Whether of two keys the one that scores higher beside the query scores lower at a distance: (n,) as above (arXiv:2605.15514)."""
    near, far = (score(q, k - other, d, rope) for d in (torch.zeros_like(distance), distance))
    return _below(near.sign() * far)


def halves(u: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """A near distance in the first half of `length` and a far one in the second, from uniforms (n, 2)."""
    middle = length // 2
    return (u[:, 0] * middle).long(), middle + (u[:, 1] * (length - middle)).long()


def gaussian(rope: Rope, head_dim: int, length: int, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """(locality lost, order lost) of `samples` random queries, (samples,) each, see above.

    Queries are N(0, I). For locality the key is the query itself, the key for which nearness says most; for order both keys are
    N(0, I) of their own, moved from distance 0 to `length`.
    """
    u = torch.from_numpy(uniforms(("rope", seed, head_dim, length), 0, samples, 3 * head_dim + 2))
    q, k, other = torch.special.ndtri(u[:, : 3 * head_dim] + 2.0**-54).split(head_dim, 1)
    near, far = halves(u[:, 3 * head_dim :], length)
    return locality_lost(q, q, near, far, rope), order_lost(q, k, other, torch.full_like(near, length), rope)


def similarity(rope: Rope, head_dim: int, distances: Tensor) -> Tensor:
    """B(m) = sum over pairs of cos(m f_i): how much more a query expects of a key like itself than of any other, at distance m.

    Pairs that don't rotate count 1 each. float64, angles too (arXiv:2405.14591).
    """
    rotary = rope.rotary(head_dim)
    angles = distances.double()[:, None] * frequencies(rope, rotary).double()
    return angles.cos().sum(-1) + (head_dim - rotary) / 2


def first_negative(rope: Rope, head_dim: int, limit: int) -> float:
    """The first distance m <= limit with B(m) < 0; infinity where there is none."""
    for start in range(1, limit + 1, CHUNK):
        distances = torch.arange(start, min(start + CHUNK, limit + 1))
        below = (similarity(rope, head_dim, distances) < 0).nonzero()
        if len(below):
            return float(distances[below[0, 0]])
    return math.inf


def aliasing_length(rope: Rope) -> float:
    """2 pi base: longer texts turn the slowest pair by more than a round (the bound of arXiv:2602.10959, of unscaled frequencies)."""
    return 2 * math.pi * rope.base


def stable_length(rope: Rope, coherence: float, layers: int) -> float:
    """base arccos(coherence^(1 / layers)): the length up to which the slowest pair's cosine, through so many layers, stays
    above `coherence` (the same source)."""
    return float(rope.base * math.acos(coherence ** (1 / layers)))


def _below(difference: Tensor) -> Tensor:
    return (difference < 0).double() + 0.5 * (difference == 0).double()
