"""Estimates over seeds with 95 % intervals. A run's seed is the unit: models, parts and conditions of one seed go together.

Student's t, not percentiles of resamples: of three seeds there are ten different resamples, and the 95 % percentile interval of their
mean covers it in three cases of four. With a single seed all bounds are NaN, so that nothing can be decided.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from zoo.measures.shared.statistics import Array, Interval, student


class Band(NamedTuple):
    """Estimates with their bounds, all of one shape."""

    value: Array
    low: Array
    high: Array


def over_seeds(values: Array) -> Band:
    """values (seeds, ...) -> the means over seeds (...) with their t intervals."""
    return _band(values.mean(0), values)


def jackknife(values: Array, statistic: Callable[[Array], Array]) -> Band:
    """A statistic of all seeds together, such as a curve's parameters, with the t interval of its pseudo-values (Tukey 1958).

    values (seeds, ...); statistic: (any number of seeds, ...) -> (...). Of a mean it is the mean's t interval.
    """
    n, whole = len(values), statistic(values)
    if n == 1:
        return _band(whole, whole[None])
    without = np.stack([statistic(np.delete(values, i, axis=0)) for i in range(n)])
    return _band(whole, n * whole - (n - 1) * without)


def _band(value: Array, units: Array) -> Band:
    n = len(units)
    if n == 1:
        return Band(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    with np.errstate(invalid="ignore"):  # infinite values have no spread: NaN bounds
        half = student(n) * units.std(0, ddof=1) / math.sqrt(n)
    return Band(value, value - half, value + half)


def interval(values: Array) -> Interval:
    """One number a seed, (seeds,) -> their mean with its t interval."""
    band = over_seeds(np.asarray(values, dtype=np.float64))
    return Interval(float(band.value), float(band.low), float(band.high), len(values))


def scaled(band: Band, factor: float, seeds: int) -> Interval:
    """A band of one number, times a factor."""
    return Interval(factor * float(band.value), factor * float(band.low), factor * float(band.high), seeds)


def clipped(estimate: Interval, low: float, high: float) -> Interval:
    """The interval of a number that can't lie outside of low .. high."""
    return estimate._replace(low=float(np.clip(estimate.low, low, high)), high=float(np.clip(estimate.high, low, high)))
