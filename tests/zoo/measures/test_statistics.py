"""Intervals against scipy's, and their coverage where no library has them."""

import math

import numpy as np
import pytest
from scipy import stats

from zoo.measures.shared.statistics import (
    Interval,
    bootstrap,
    clustered_proportion,
    mean_interval,
    paired_difference,
    ratio_interval,
    wilson,
)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 20), (3, 20), (19, 20), (20, 20), (512, 1000)])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_wilson_is_scipys(k: int, n: int, level: float) -> None:
    expected = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    found = wilson(k, n, level)
    assert found[:2] == pytest.approx((k / n, expected.low), abs=1e-12)
    assert found.high == pytest.approx(expected.high, abs=1e-12)
    assert found.n == n


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3), (0, 0)])
def test_wilson_refuses_what_is_no_proportion(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson(k, n)


def test_mean_interval_is_students() -> None:
    x = np.random.default_rng(0).normal(3, 2, 11)
    expected = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert mean_interval(x) == pytest.approx((x.mean(), expected.low, expected.high, 11))


def test_one_value_has_no_interval() -> None:
    found = mean_interval([2.0])
    assert found.value == 2.0
    assert math.isnan(found.low)
    assert not found.excludes(0.0)
    assert not paired_difference([5.0], [1.0]).excludes(0.0)


def test_paired_difference_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(0, 5, 30)
    b = a - 0.3 + rng.normal(0, 0.2, 30)  # far apart on the same units, hopeless unpaired
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert paired_difference(a, b)[1:3] == pytest.approx((expected.low, expected.high))
    assert paired_difference(a, b).excludes(0.0)
    assert not paired_difference(a, rng.permutation(b)).excludes(0.0)
    with pytest.raises(ValueError, match="same units"):
        paired_difference(a, b[:-1])


def test_clusters_of_independent_answers_are_wilsons_of_all_answers() -> None:
    rng = np.random.default_rng(2)
    answers = rng.random((4000, 8)) < 0.7
    found, expected = clustered_proportion(answers.mean(1), 8), wilson(int(answers.sum()), answers.size)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-3)


def test_clusters_that_agree_within_are_wilsons_of_the_examples() -> None:
    shares = np.array([1.0] * 30 + [0.0] * 70)
    found, expected = clustered_proportion(shares, 32), wilson(30, 100)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=2e-3)
    assert found.n == 100


def test_all_right_still_has_an_interval() -> None:
    assert clustered_proportion(np.ones(50), 16) == wilson(50, 50)
    assert clustered_proportion(np.zeros(50), 16) == wilson(0, 50)


@pytest.mark.parametrize("mean", [0.5, 0.95])
def test_clustered_interval_covers(mean: float) -> None:
    """Examples differ in difficulty (beta-binomial): Wilson's interval over all answers would cover far too rarely."""
    rng = np.random.default_rng(3)
    covered, naive = 0, 0
    for _ in range(600):
        p = rng.beta(2 * mean, 2 * (1 - mean), 128)
        shares = rng.binomial(16, p) / 16
        found, wrong = clustered_proportion(shares, 16), wilson(shares.sum() * 16, 128 * 16)
        covered += found.low <= mean <= found.high
        naive += wrong.low <= mean <= wrong.high
    assert 0.92 <= covered / 600 <= 0.985
    assert naive / 600 < 0.75


def test_bootstrap_agrees_with_scipys_percentile_interval() -> None:
    x = np.random.default_rng(4).exponential(1.0, 40)
    expected = stats.bootstrap((x,), np.mean, method="percentile", n_resamples=20000, rng=np.random.default_rng(5)).confidence_interval
    found = bootstrap(x, lambda r: r.mean(1), 0, resamples=20000)
    assert found.value == pytest.approx(x.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)
    assert found == bootstrap(x, lambda r: r.mean(1), 0, resamples=20000)
    assert found != bootstrap(x, lambda r: r.mean(1), 1, resamples=20000)


def test_bootstrap_keeps_infinity() -> None:
    found = bootstrap([1.0, 2.0, 3.0], lambda r: np.where(r.mean(1) > 1.2, np.inf, 5.0), 0)
    assert found == Interval(np.inf, 5.0, np.inf, 3)


def test_ratio_is_of_sums() -> None:
    found = ratio_interval([10.0, 1.0], [100, 1], 0)
    assert found.value == pytest.approx(11 / 101)
    assert (found.low, found.high) == pytest.approx((0.1, 1.0))


def test_nothing_has_no_mean() -> None:
    with pytest.raises(ValueError, match="non-empty"):
        mean_interval([])
