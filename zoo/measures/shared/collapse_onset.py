"""Where a loss by position collapses: statistics of (r, documents, buckets) -> (r,), r resamples of the documents (see collapse.py)."""

from __future__ import annotations

import math

import numpy as np

from zoo.measures.shared.statistics import Array, student


def loss_ratio(streamed: Array, *, beyond: np.ndarray) -> Array:
    """The largest streamed loss of the buckets `beyond` over the largest of the others; a loss that is no number is infinite."""
    mean = np.nan_to_num(streamed.mean(1), nan=np.inf)
    outside, inside = mean[:, beyond].max(-1), mean[:, ~beyond].max(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(outside == 0, 0.0, outside / inside)
    return np.nan_to_num(ratio, nan=np.inf)


def onset(excess: Array, *, edges: Array, inside: int, margin: float) -> Array:
    """The first edge at or beyond `inside` from which the excess is above the margin; inf = none."""
    return _first(excess, edges, edges >= inside, margin)


def leaves_minimum(streamed: Array, *, edges: Array, margin: float) -> Array:
    """The first edge after its minimum from which the streamed loss is above that minimum by the margin; inf = none."""
    lowest = np.nan_to_num(streamed.mean(1), nan=np.inf).argmin(-1)
    with np.errstate(invalid="ignore"):
        rise = streamed - np.take_along_axis(streamed, lowest[:, None, None], -1)
    return _first(rise, edges, np.arange(len(edges)) > lowest[:, None], margin)


def _first(values: Array, edges: Array, allowed: np.ndarray, margin: float) -> Array:
    """(r,) the first allowed edge from which the mean over documents is above the margin, and its t interval above 0, twice in a row.
    A loss that is infinite or no number is above any margin."""
    broken = ~np.isfinite(values).all(1)
    n = values.shape[1]
    with np.errstate(invalid="ignore"):
        mean = values.mean(1)
        half = student(n) * values.std(1, ddof=1) / math.sqrt(n) if n > 1 else 0.0  # newlines: the only text there is
    above = ((mean > margin) & (mean - half > 0) | broken) & allowed
    twice = above[:, :-1] & above[:, 1:]
    return np.where(twice.any(-1), edges[twice.argmax(-1)], np.inf)


def reached(position: float) -> float:
    """1 where there is such an edge, else 0."""
    return float(math.isfinite(position))
