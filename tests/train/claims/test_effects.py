"""Each kind of effect on results with known ones: the estimate, the interval, the three verdicts."""

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from blocks.errors import ConfigError
from tests.train.claims.synthetic import judged, records, scope
from train.claims.config import Bounds, ClaimConfig
from train.claims.intervals import jackknife, over_seeds
from train.claims.trends import Fit
from train.claims.verdict import decide, judge, together
from zoo.measures.shared.statistics import Interval, bootstrap

CELL = {"part": "p64", "measure": "m", "metric": "accuracy", "where": {"pairs": 4}}
SERIES = CELL
SIZES = {"s1": 1.0, "s2": 2.0, "s4": 4.0, "s8": 8.0, "s16": 16.0}
NAN = float("nan")
INF = float("inf")


# ---- the verdict of an interval


@pytest.mark.parametrize(
    ("low", "high", "above", "below", "verdict"),
    [
        (0.6, 0.8, 0.5, None, "holds"),
        (0.4, 0.8, 0.5, None, "undecided"),
        (0.1, 0.4, 0.5, None, "fails"),
        (0.5, 0.8, 0.5, None, "undecided"),  # the interval touches the threshold
        (0.0, 0.0, 0.0, None, "fails"),  # exactly the threshold is not above it
        (0.1, 0.4, None, 0.5, "holds"),
        (0.6, 0.8, None, 0.5, "fails"),
        (0.4, 0.6, 0.3, 0.7, "holds"),
        (0.2, 0.6, 0.3, 0.7, "undecided"),
        (0.8, 0.9, 0.3, 0.7, "fails"),
        (0.6, INF, 0.5, None, "holds"),
        (0.4, INF, 0.5, None, "undecided"),
        (0.6, INF, None, 0.5, "fails"),
        (0.4, INF, None, 0.5, "undecided"),
        (NAN, NAN, 0.5, None, "undecided"),
    ],
)
def test_decide(low: float, high: float, above: float | None, below: float | None, verdict: str) -> None:
    assert decide(Interval(0.5, low, high, 3), Bounds(text="t", effect="value", above=above, below=below)) == verdict


def test_together() -> None:
    assert together(["holds", "holds"]) == "holds"
    assert together(["holds", "undecided"]) == "undecided"
    assert together(["holds", "undecided", "fails"]) == "fails"


# ---- single cells


def test_value() -> None:
    rows, where = records({"a": [0.90, 0.92, 0.94]}), scope(3, {"a": 1})
    row = judged({**CELL, "effect": "value", "model": "a", "above": 0.8}, rows, where)
    half = float(stats.t.ppf(0.975, 2)) * 0.02 / math.sqrt(3)
    assert (row["estimate"], row["low"], row["high"]) == pytest.approx((0.92, 0.92 - half, 0.92 + half))
    assert (row["verdict"], row["seeds"]) == ("holds", 3)
    assert judged({**CELL, "effect": "value", "model": "a", "above": 0.9}, rows, where)["verdict"] == "undecided"
    assert judged({**CELL, "effect": "value", "model": "a", "above": 0.98}, rows, where)["verdict"] == "fails"


def test_one_seed_decides_nothing() -> None:
    row = judged({**CELL, "effect": "value", "model": "a", "above": 0.1}, records({"a": [0.9]}), scope(1, {"a": 1}))
    assert (row["estimate"], row["low"], row["high"], row["verdict"]) == (0.9, None, None, "undecided")


def test_difference_is_paired() -> None:
    """The seeds differ by far more than the models."""
    seeds = np.array([0.1, 0.5, 0.9])
    rows, where = records({"a": seeds + np.array([0.05, 0.06, 0.07]), "b": seeds}), scope(3, {"a": 1, "b": 1})
    statement = {"effect": "difference", "of": {**CELL, "model": "a"}, "minus": {"model": "b"}, "above": 0.0}
    row = judged(statement, rows, where)
    assert row["estimate"] == pytest.approx(0.06)
    assert row["verdict"] == "holds"
    assert judged(statement | {"above": 0.06}, rows, where)["verdict"] == "undecided"
    assert judged(statement | {"above": 0.2}, rows, where)["verdict"] == "fails"


def test_ratio() -> None:
    rows, where = records({"a": [2.0, 4.0, 8.0], "b": [1.0, 1.0, 1.0]}), scope(3, {"a": 1, "b": 1})
    statement = {"effect": "ratio", "of": {**CELL, "model": "a"}, "to": {"model": "b"}, "above": 0.5}
    row = judged(statement, rows, where)
    half = float(stats.t.ppf(0.975, 2)) / math.sqrt(3)  # the base 2 logarithms are 1, 2, 3
    assert (row["estimate"], row["low"], row["high"]) == pytest.approx((4.0, 2 ** (2 - half), 2 ** (2 + half)))
    assert row["verdict"] == "holds"
    row = judged(statement, records({"a": [2.0, 4.0, 8.0], "b": [0.0, 1.0, 1.0]}), where)
    assert (row["low"], row["verdict"]) == (None, "undecided")


# ---- trends


def trend(effect: str, y: np.ndarray, **fields: Any) -> dict[str, Any]:
    """y (seeds, models)."""
    rows = records(dict(zip(SIZES, y.T, strict=True)))
    return judged({**SERIES, "effect": effect, **fields}, rows, scope(len(y), SIZES))


def test_rank() -> None:
    up = np.array([[0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.2, 0.3, 0.5, 0.4], [0.1, 0.2, 0.3, 0.4, 0.5]])
    row = trend("rank", up, above=0.5)
    assert row["estimate"] == pytest.approx((1 + 0.9 + 1) / 3)
    assert (row["verdict"], row["high"]) == ("holds", 1.0)
    assert trend("rank", up, above=0.5, method="kendall")["estimate"] == pytest.approx((1 + 0.8 + 1) / 3)
    assert trend("rank", up[:, ::-1], above=0.5)["verdict"] == "fails"
    assert trend("rank", np.stack([up[0], up[0][::-1], up[1]]), above=0.5)["verdict"] == "undecided"
    assert trend("rank", np.ones((3, 5)), above=0.5)["estimate"] == 0.0


def test_slope() -> None:
    x = np.array(list(SIZES.values()))
    row = trend("slope", np.stack([3 * x, 4 * x + 7, 5 * x]), above=0.5)
    half = float(stats.t.ppf(0.975, 2)) / math.sqrt(3)
    assert (row["estimate"], row["low"], row["high"]) == pytest.approx((4.0, 4 - half, 4 + half))
    assert (row["verdict"], row["unit"]) == ("holds", "accuracy a KiB of state")
    curve = row["picture"]["curves"][0]
    assert (curve["x"][0], curve["x"][-1]) == (1.0, 16.0)
    assert curve["value"][-1] == pytest.approx(64 + 7 / 3)
    doubling = trend("slope", np.stack([2 * np.log2(x)] * 3), above=1, scale="log2")
    assert doubling["estimate"] == pytest.approx(2.0)
    assert doubling["unit"] == "accuracy a doubling of the state"


@pytest.mark.parametrize("curve", ["line", "exponential"])
def test_fit_finds_the_curve_that_made_the_points(curve: str) -> None:
    x, noise = np.array(list(SIZES.values())), np.random.default_rng(0).normal(0, 0.5, (4, 5))
    clean = {"line": 3 * x - 1, "exponential": 2 * (1.3**x - 1) + 5}[curve]
    fit = {"effect": "fit", "y": clean + noise, "above": 0}
    better = trend(**fit, curve=curve, estimates="aic")
    if curve == "exponential":
        assert better["verdict"] == "holds"
    else:  # the line lies among the exponentials: theirs is never worse by more than the AIC of one parameter
        assert 0 < better["estimate"] <= 2
    assert trend(**fit, curve={"line": "exponential", "exponential": "line"}[curve])["estimate"] == pytest.approx(-better["estimate"])
    assert [c["name"] for c in better["picture"]["curves"]] == ["line", "exponential"]
    parameters = {"line": {"slope": 3, "intercept": -1}, "exponential": {"a": 2, "b": 1.3, "c": 5}}[curve]
    for name, true in parameters.items():
        row = trend("fit", clean + noise, curve=curve, estimates=name, above=-100)
        assert row["low"] < true < row["high"]
    assert trend("fit", clean + noise, curve=curve, estimates="r2", above=0.95)["verdict"] == "holds"


def test_aic_counts_what_it_says() -> None:
    """n log(RSS / n) + 2 (parameters + 1), of the two least squares fits."""
    x, y = np.array(list(SIZES.values())), np.array([[1.0, 2.5, 3.5, 9.0, 15.5], [1.5, 2.0, 4.5, 8.0, 16.5]])
    row = trend("fit", y, curve="line", estimates="aic", above=0)
    line = stats.linregress(np.tile(x, 2), y.ravel())
    residual = ((y - line.intercept - line.slope * x) ** 2).sum()
    found = trend("fit", y, curve="exponential", estimates="r2", above=0)
    other = (1 - found["estimate"]) * ((y - y.mean()) ** 2).sum()
    assert row["estimate"] == pytest.approx((10 * math.log(other / 10) + 8) - (10 * math.log(residual / 10) + 6))


def test_numbers_that_are_not_finite_decide_nothing() -> None:
    y = np.stack([np.array(list(SIZES.values()))] * 3)
    y[1, 2] = np.inf
    for effect in ("slope", "fit"):
        row = trend(effect, y, above=0)
        assert (row["low"], row["high"], row["verdict"]) == (None, None, "undecided")
        assert json.loads(json.dumps(row, allow_nan=False)) == row


# ---- coverage: of 95 % intervals over few seeds


def test_the_intervals_cover_and_percentiles_would_not() -> None:
    """3 seeds of a normal number, 2,000 times: Student's t covers the truth in 95 %, the percentile bootstrap in far fewer."""
    draws = np.random.default_rng(1).normal(0, 1, (2000, 3))
    band = over_seeds(draws.T)
    assert ((band.low < 0) & (band.high > 0)).mean() == pytest.approx(0.95, abs=0.015)
    resampled = [bootstrap(row, lambda x: x.mean(-1), 0, resamples=200) for row in draws[:300]]
    assert np.mean([r.low < 0 < r.high for r in resampled]) < 0.85


def test_the_jackknife_of_a_mean_is_its_t_interval() -> None:
    values = np.random.default_rng(2).normal(0, 1, (5, 3))
    for mine, other in zip(jackknife(values, lambda rows: rows.mean(0)), over_seeds(values), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-12)


def test_the_intervals_of_fitted_parameters_cover() -> None:
    """The rate b of an exponential with noisy points, 4 seeds, 200 times."""
    rng, x = np.random.default_rng(3), np.array(list(SIZES.values()))
    fit = Fit(part="p", measure="m", metric="accuracy", curve="exponential", estimates="b")
    covered = []
    for _ in range(200):
        y = 2 * (1.2**x - 1) + 1 + rng.normal(0, 0.5, (4, 5))
        band = jackknife(y, lambda rows: np.array(fit._judged(x, rows)))
        covered.append(band.low < 1.2 < band.high)
    assert 0.90 <= np.mean(covered) <= 0.99


# ---- cells that aren't there


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metric": "acuracy"}, ["claim.statements[0].metric = 'acuracy'", "Metrics: accuracy"]),
        ({"where": {"pairs": 5}}, ["claim.statements[0].where", "no condition has these keys", "'pairs=4;length=64'"]),
        ({"where": {"length": 64}}, ["claim.statements[0].where", "several conditions", "'pairs=8;length=64'"]),
    ],
)
def test_a_missing_cell_is_an_error_that_names_what_there_is(change: dict[str, Any], words: list[str]) -> None:
    rows = [*records({"a": [1, 2]}, condition="pairs=4;length=64"), *records({"a": [1, 2]}, condition="pairs=8;length=64")]
    with pytest.raises(ConfigError) as error:
        judged({**CELL, "effect": "value", "model": "a", "above": 0, **change}, rows, scope(2, {"a": 1}))
    assert [word for word in words if word not in str(error.value)] == []


def test_the_shorter_condition_wins_and_numbers_are_numbers() -> None:
    rows = [*records({"a": [1, 2]}, condition="length=64"), *records({"a": [3, 4]}, condition="length=64;depth=0.5")]
    statement = {**CELL, "effect": "value", "model": "a", "above": 0}
    assert judged(statement | {"where": {"length": 64}}, rows, scope(2, {"a": 1}))["estimate"] == 1.5
    assert judged(statement | {"where": {"length": 64.0, "depth": "0.50"}}, rows, scope(2, {"a": 1}))["estimate"] == 3.5


def test_a_claim_fails_with_one_statement() -> None:
    rows, where = records({"a": [0.90, 0.92, 0.94]}), scope(3, {"a": 1})
    statements = tuple({"text": "t", "effect": "value", "model": "a", **CELL, "above": above} for above in (0.1, 0.99))
    assert judge(ClaimConfig(finding="f", paper="p", scaled="s", statements=statements), rows, where)["verdict"] == "fails"
