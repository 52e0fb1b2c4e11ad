"""Which channels of a state explode: their energy at the end of a text against their energy after the training length.

A channel explodes if the lower end of its growth's interval is above `explodes`, and in every document it ends above all that it held
at a look inside the training length: single looks at a channel that hardly remembers vary by any factor. What collapses a model is a
few such channels in a few heads, about one channel in twenty, while the mean of the state stays near zero (Stuffed Mamba,
arXiv:2410.07145).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from zoo.measures.shared.base import Row, exact_row, row
from zoo.measures.shared.state_tensors import MATRIX, Held, Name, heads, place
from zoo.measures.shared.statistics import Array, Interval

FLOOR = 1e-12  # of a head's mean energy: a channel that was never written to has grown from there

Average = Callable[[ArrayLike], Interval]


class Channels(NamedTuple):
    """What the channels of one tensor held after some tokens. b documents, h heads, c channels."""

    name: Name
    headed: bool  # whether the tensor has heads; otherwise h = 1
    entries: int  # of a channel
    energy: Tensor  # (b, h, c) float64: sum of squares
    total: Tensor  # (b, h) float64: sum of the entries


class Explosion(NamedTuple):
    """The growth of one head's channels."""

    where: dict[str, Any]  # of the head
    channels: list[Interval]  # energy at the end / energy after the training length, geometric mean over documents
    highest: Array  # (c,) bool: in every document the end is above every look inside the training length
    variance: Interval  # of the head's entries: the same ratio
    mean_over_std: Interval  # |mean| / standard deviation of the head's entries at the end


def channels(held: Held, energy: Tensor) -> Channels:
    """What a tensor holds now."""
    assert isinstance(held.value, Tensor)
    wide = heads(held.value).flatten(2)
    return Channels(held.name, held.value.ndim == MATRIX, wide.shape[-1] // energy.shape[-1], energy, wide.sum(-1))


def explosions(inside: list[list[Channels]], end: list[Channels], average: Average) -> list[Explosion]:
    """Of every head: at the end, against looks inside the training length, the last of them after it."""
    exploded = []
    looks = [{x.name: x for x in look} for look in inside]
    for now in end:
        then = looks[-1][now.name]
        for head in range(now.energy.shape[1]):
            where = place(now.name) | ({"head": head} if now.headed else {})
            a, b = (x.energy[:, head].numpy() for x in (then, now))
            (_, spread), (mean, deviation) = _moments(then, head), _moments(now, head)
            with np.errstate(invalid="ignore", divide="ignore"):
                share = np.nan_to_num(np.abs(mean) / deviation, nan=0.0, posinf=0.0)  # a state of zeros, or one that is no number
            floor = FLOOR * a.mean()
            grown = [_growth(a[:, c] + floor, b[:, c] + floor, average) for c in range(a.shape[1])]
            peak = np.max([look[now.name].energy[:, head].numpy() for look in looks], 0)
            highest = ~(b <= peak).any(0)  # no number is above any
            exploded.append(Explosion(where, grown, highest, _growth(spread**2, deviation**2, average), average(share)))
    return exploded


def _moments(x: Channels, head: int) -> tuple[Array, Array]:
    """Mean and standard deviation of a head's entries, (b,) each."""
    n = x.entries * x.energy.shape[-1]
    mean = x.total[:, head] / n
    return mean.numpy(), (x.energy[:, head].sum(-1) / n - mean.square()).clamp(min=0).sqrt().numpy()


def _growth(before: Array, after: Array, average: Average) -> Interval:
    """after / before (b,): geometric mean, interval of the mean logarithm. What is no number has grown without bound."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratio = np.where((before == 0) & (after == 0), 1.0, after / before)
        logs = np.log(np.where(np.isfinite(after), ratio, np.inf))
    if np.isfinite(logs).all():
        mean = average(logs)
        with np.errstate(over="ignore"):
            return Interval(float(np.exp(mean.value)), float(np.exp(mean.low)), float(np.exp(mean.high)), mean.n)
    return Interval(math.inf if np.isposinf(logs).any() else 0.0, float(np.exp(logs.min())), float(np.exp(logs.max())), len(logs))


def explosion_rows(exploded: list[Explosion], where: Mapping[str, Any], span: Mapping[str, Any], explodes: float, named: int) -> list[Row]:
    """Rows of each head, of its `named` most grown channels, and of the model; see zoo.measures.state."""
    rows, exploding_heads, exploding_channels = [], 0, 0
    for head in exploded:
        exploding = [growth.low > explodes and bool(high) for growth, high in zip(head.channels, head.highest, strict=True)]
        exploding_heads, exploding_channels = exploding_heads + any(exploding), exploding_channels + sum(exploding)
        here, n = {**where, **head.where, **span}, head.variance.n
        rows += [row(here, "variance_growth", head.variance), row(here, "mean_over_std", head.mean_over_std)]
        rows += [exact_row(here, "exploding_share", sum(exploding) / len(exploding), n)]
        for c in sorted(range(len(exploding)), key=lambda c: -head.channels[c].value)[:named]:
            this = {**where, **head.where, "channel": c, **span}
            rows += [row(this, "growth", head.channels[c]), exact_row(this, "exploding", float(exploding[c]), n)]
    n = exploded[0].variance.n if exploded else 0
    rows.append(exact_row({**where, **span}, "exploding_heads", float(exploding_heads), n))
    rows.append(exact_row({**where, **span}, "exploding_channels", float(exploding_channels), n))
    return rows


def map_rows(worst: dict[str, Any], looks: Mapping[int, list[Channels]], where: Mapping[str, Any], average: Average) -> list[Row]:
    """The root mean square of every channel of one head, at every token of `looks`."""
    rows = []
    for token, tensors in looks.items():
        for x in tensors:
            if place(x.name) == {key: value for key, value in worst.items() if key != "head"}:
                rms = (x.energy[:, worst.get("head", 0)] / x.entries).sqrt().numpy()
                rows += [
                    row({**where, **worst, "channel": c, "token": token}, "channel_rms", average(rms[:, c])) for c in range(rms.shape[1])
                ]
    return rows


def worst_head(exploded: list[Explosion]) -> dict[str, Any]:
    """The head with the channel that grew most."""
    return max(exploded, key=lambda head: max(growth.value for growth in head.channels)).where
