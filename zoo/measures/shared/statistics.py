"""Intervals and comparisons: what may be said of a number that was measured on few examples, documents or seeds.

Every interval is two-sided; one that the data can't give (a single value) is NaN, so that no comparison with it holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95
RESAMPLES = 2000

Array = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate with its confidence interval; n = independent units (examples, documents, seeds) behind it."""

    value: float
    low: float
    high: float
    n: int

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside of the interval; False where there is none."""
        return self.low > value or self.high < value


def wilson(successes: float, n: float, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927). `successes` of `n` independent trials; both may be effective sizes."""
    if not 0 <= successes <= n or n <= 0:
        raise ValueError(f"successes must be 0 .. n of n > 0 trials, not {successes} of {n}")
    z, p = float(stats.norm.ppf((1 + level) / 2)), successes / n
    centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)
    return Interval(p, 0.0 if successes == 0 else low, 1.0 if successes == n else high, int(n))


def clustered_proportion(shares: ArrayLike, trials: float, level: float = LEVEL) -> Interval:
    """The proportion right when each of n examples is asked `trials` times (on average), and an example's answers go together.

    shares (n,): share right in each example. Wilson's interval at the effective number of trials p (1 - p) / se^2, se the standard
    error of the mean over examples (Korn & Graubard 1998), between n (an example is all right or all wrong; also where all examples
    agree and se says nothing) and n * trials (all answers independent).
    """
    values = _vector(shares)
    n, p = len(values), float(values.mean())
    squared_error = float(values.var(ddof=1)) / n if n > 1 else 0.0
    effective = p * (1 - p) / squared_error if squared_error > 0 else n
    effective = min(max(effective, n), n * trials)
    return wilson(min(p, 1.0) * effective, effective, level)._replace(value=p, n=n)


def mean_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """The mean of n independent values with Student's t interval; NaN bounds for n = 1."""
    x = _vector(values)
    n, mean = len(x), float(x.mean())
    if n == 1:
        return Interval(mean, np.nan, np.nan, 1)
    with np.errstate(invalid="ignore"):  # infinite values have no spread: NaN bounds
        half = student(n, level) * float(x.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


@lru_cache
def student(n: int, level: float = LEVEL) -> float:
    """The t quantile of a two-sided interval of a mean of n values."""
    return float(stats.t.ppf((1 + level) / 2, n - 1))


def bootstrap(
    groups: ArrayLike, statistic: Callable[[Array], Array], seed: int, *, resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval:
    """A statistic of whole groups (documents), with the percentile interval of the bootstrap over groups.

    groups (g, ...): one entry a group. statistic: (r, g, ...) -> (r,), r sets of groups at once; it may yield infinity (a
    threshold never reached). NaN bounds for g = 1.
    """
    x = np.asarray(groups, dtype=np.float64)
    g = len(x)
    value = float(statistic(x[None])[0])
    if g == 1:
        return Interval(value, np.nan, np.nan, 1)
    drawn = np.random.Generator(np.random.Philox(seed)).integers(0, g, (resamples, g))
    estimates = statistic(x[drawn])
    low, high = np.quantile(estimates, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")  # no arithmetic between infinities
    return Interval(value, float(low), float(high), g)


def ratio_interval(sums: ArrayLike, counts: ArrayLike, seed: int, level: float = LEVEL) -> Interval:
    """sum(sums) / sum(counts) over documents (the mean loss of a token), bootstrapped over documents."""
    pairs = np.stack([_vector(sums), _vector(counts)], -1)
    return bootstrap(pairs, lambda x: x[..., 0].sum(-1) / x[..., 1].sum(-1), seed, level=level)


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = LEVEL) -> Interval:
    """mean(a - b) of values measured on the same units (documents, seeds, examples), Student's t on the differences."""
    x, y = _vector(a), _vector(b)
    if x.shape != y.shape:
        raise ValueError(f"paired values must be of the same units: {len(x)} and {len(y)} were given")
    return mean_interval(x - y, level)


def _vector(values: ArrayLike | Sequence[float]) -> Array:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) == 0:
        raise ValueError(f"needs a non-empty list of numbers, not shape {x.shape}")
    return x
