"""Numbers that describe a state tensor, by document and head."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.measures.shared.state_tensors import MATRIX, by_head, heads
from zoo.measures.shared.statistics import Array

TINY = 1e-300  # a state of zeros has no peak and no rank: 0 / TINY = 0


def describe(x: Tensor) -> dict[str, Array]:
    """The statistics of a state tensor (b, ...): metric -> (b, h), or (b,) where it has no heads; see zoo.measures.state."""
    flat, by_channel = heads(x).flatten(2), energy(x)
    statistics = {
        "norm": flat.norm(dim=-1),
        "mean": flat.mean(-1),
        "variance": flat.var(-1, unbiased=False),
        "max": flat.abs().amax(-1),
        "peak_share": by_channel.amax(-1) / by_channel.sum(-1).clamp(min=TINY),
        "peak_channel": by_channel.sum(0).argmax(-1).double().expand(len(x), -1),  # one channel, over all documents
    }
    if x.ndim == MATRIX:
        known = flat.isfinite().all(-1)
        statistics |= {metric: values.where(known, torch.nan) for metric, values in _spectrum(heads(x)).items()}
    return {metric: by_head(x, values) for metric, values in statistics.items()}


def _spectrum(x: Tensor) -> dict[str, Tensor]:
    """x (b, h, k, v) -> what its singular values s say, (b, h) each."""
    singular = torch.linalg.svdvals(x.nan_to_num(0.0, 0.0, 0.0))
    power = singular.square()
    full, total = singular.shape[-1], power.sum(-1).clamp(min=TINY)
    rank = singular.sum(-1).square() / total
    share = power / total[..., None]
    return {
        "effective_rank": rank,
        "utilisation": rank / full,
        "stable_rank": power.sum(-1) / power[..., 0].clamp(min=TINY),
        "spectrum_entropy": torch.special.entr(share).sum(-1) / max(math.log(full), TINY),
    }


def energy(x: Tensor) -> Tensor:
    """Sum of squares of each channel (the last axis) of a state tensor (b, ...): (b, h, channels), float64."""
    wide = heads(x)
    return wide.square().flatten(2, -2).sum(2) if wide.ndim > 3 else wide.square()


def cosine(x: Tensor, before: Tensor) -> Array:
    """Of a state tensor with what it was: (b, h), or (b,) where it has no heads; 0 where either is zero."""
    now, then = heads(x).flatten(2), heads(before).flatten(2)
    return by_head(x, (now * then).sum(-1) / (now.norm(dim=-1) * then.norm(dim=-1)).clamp(min=TINY))
