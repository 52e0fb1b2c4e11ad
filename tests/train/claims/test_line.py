"""The line of training lengths: where thresholds lie, what the grid's resolution and censored thresholds do to the interval."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.train.claims.synthetic import judged, records, scope
from train.claims.line import thresholds

LENGTHS = (64, 128, 256, 512)
SIZES = {"s1": 1.0, "s2": 2.0, "s4": 4.0}


def line(safe: list[list[float]], above: float = 0.0, **fields: Any) -> dict[str, Any]:
    """safe (seeds, models): a model collapses at lengths below it."""
    rows = []
    for length in LENGTHS:
        collapsed = {m: [float(length < seed[i]) for seed in safe] for i, m in enumerate(SIZES)}
        rows += records(collapsed, f"p{length}", f"train_length={length};length=4096", "collapsed")
    statement = {"effect": "line", "measure": "m", "parts": [f"p{n}" for n in reversed(LENGTHS)], "above": above, **fields}
    return judged(statement, rows, scope(len(safe), SIZES, LENGTHS))


def test_thresholds_lie_after_the_longest_collapse() -> None:
    collapsed = np.array([[[False] * 4, [True, False, False, False], [False, True, False, False], [True] * 4]])
    found = thresholds(collapsed, np.array([64.0, 128, 256, 512]))
    assert found.low.tolist() == [[0, 64, 128, 512]]
    assert found.high.tolist() == [[64, 128, 256, math.inf]]
    assert found.middle.tolist() == [[32, 96, 192, 512]]


def test_the_slope_and_the_resolution_of_the_grid() -> None:
    """All seeds agree: what is left of the interval is that a threshold lies somewhere in its gap."""
    row = line([[128, 256, 512]] * 3)
    x, middle, gaps = np.array([1.0, 2, 4]), np.array([96.0, 192, 384]), np.array([64.0, 128, 256])
    pull = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    half = float(stats.t.ppf(0.975, 2)) * math.sqrt(((pull * gaps) ** 2).sum() / 12)
    slope = stats.linregress(x, middle).slope
    assert (row["estimate"], row["low"], row["high"]) == pytest.approx((slope, slope - half, slope + half))
    assert row["notes"] == ["0 of 9 thresholds below the shortest length, 0 above the longest"]
    assert row["unit"] == "tokens a KiB of state"
    assert line([[128, 256, 512]] * 3, estimates="r2")["estimate"] == pytest.approx(stats.linregress(x, middle).rvalue ** 2)


def test_the_three_verdicts() -> None:
    rising = [[128, 256, 512], [128, 256, 512], [128, 256, 512]]
    assert line(rising, above=-50)["verdict"] == "holds"
    assert line(rising, above=300)["verdict"] == "fails"
    assert line([[128, 256, 512], [512, 256, 128], [256, 256, 256]])["verdict"] == "undecided"


def test_longer_than_the_longest_leaves_the_interval_open() -> None:
    """The largest state's threshold is above 512: its true slope may be any larger. The smallest's: any smaller."""
    row = line([[128, 256, 9999]] * 3)
    assert (row["high"], row["notes"]) == (None, ["0 of 9 thresholds below the shortest length, 3 above the longest"])
    assert row["low"] is not None
    assert row["low"] < row["estimate"]
    points = [p for p in row["picture"]["points"] if p["model"] == "s4"]
    assert [(p["y"], p["low"], p["high"]) for p in points] == [(512.0, 512.0, None)] * 3
    row = line([[9999, 256, 128], [512, 256, 128], [512, 256, 128]], above=1)
    assert (row["low"], row["verdict"]) == (None, "fails")
    assert line([[128, 256, 9999]] * 3, estimates="r2", above=0.1)["verdict"] == "undecided"


def test_mostly_outside_of_the_grid_decides_nothing() -> None:
    row = line([[64, 64, 9999]] * 3)
    assert (row["low"], row["high"], row["verdict"]) == (None, None, "undecided")
    assert row["estimate"] > 0


def test_one_seed_decides_nothing() -> None:
    assert line([[128, 256, 512]])["verdict"] == "undecided"
