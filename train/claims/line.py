"""The training length that a state size needs: thresholds located on a grid of parts (lengths) and models (state sizes), and their line.

A model's threshold in a seed lies between the longest part in which it collapses and the next longer one: it enters the fit as the
middle of that gap, and the gap's width (the standard deviation of a uniform number, the same in every seed) is part of the slope's
interval beside the spread of the seeds.

A model that never collapses has its threshold between 0 and the shortest length. One that collapses even at the longest has it anywhere
above: it enters at that length and leaves the slope's interval open on the side to which a longer threshold would pull the line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from blocks.errors import ConfigError, one_of, require
from train.claims.estimate import Curve, Estimate, Picture, Point
from train.claims.intervals import clipped, interval, over_seeds
from train.claims.scope import Scope
from train.claims.selectors import Results, Series
from train.claims.trends import CURVE_POINTS, KIB, axis
from zoo.measures.shared.statistics import Array, Interval, student

Bools = NDArray[np.bool_]

COLLAPSED = 0.5  # a metric above it is a collapse
LEAST = 3  # state sizes, and the share 1/2 of thresholds that must lie inside of the grid


class Thresholds(NamedTuple):
    """(seeds, models) each: the threshold lies in low .. high tokens; high is infinite where every length collapses."""

    low: Array
    high: Array

    @property
    def middle(self) -> Array:
        return np.where(np.isfinite(self.high), (self.low + self.high) / 2, self.low)


def thresholds(collapsed: Bools, lengths: Array) -> Thresholds:
    """collapsed (seeds, models, lengths) bool, lengths rising -> where the smallest length without collapse lies."""
    edges = np.concatenate([[0.0], lengths, [np.inf]])
    longest = np.where(collapsed, np.arange(1, len(lengths) + 1), 0).max(-1)  # 0: at no length
    return Thresholds(edges[longest], edges[longest + 1])


@dataclass(frozen=True, kw_only=True)
class Line:
    """The line of the smallest training length without collapse over a number of the models."""

    SUMMARY: ClassVar[str] = "the smallest training length without collapse over the state's size: slope, or R^2"

    measure: str  # its name in the parts, one of collapse
    metric: str = "collapsed"  # 1 or 0
    where: dict[str, Any] = field(default_factory=dict)  # keys of the condition
    parts: tuple[str, ...]  # names of parts, of different training lengths
    models: tuple[str, ...] | None = None  # names of models; null: all of the first part
    over: str = "state_bytes"  # see Trend; the same in every part
    estimates: str = (
        "slope"  # slope (tokens of training length a KiB of state, or a unit of `over`) | r2 (share of the variance on the line)
    )

    def __post_init__(self) -> None:
        one_of("estimates", self.estimates, ("slope", "r2"))

    def check(self, scope: Scope) -> None:
        for i, part in enumerate(self.parts):
            require(part in scope.models, f"parts[{i}]", part, "is no part", f"Parts: {', '.join(scope.models)}")
            scope.check_series(part, self.measure, self.metric)
            for j, model in enumerate(self.names(scope)):
                scope.check_model(part, model, f"models[{j}]")
        lengths = [scope.lengths[part] for part in self.parts]
        require(
            len(set(lengths)) == len(lengths) >= 2,
            "parts",
            list(self.parts),
            f"must have different training lengths, two at least, not {lengths}",
        )
        sizes = [self._size(scope, model) for model in self.names(scope)]
        require(
            len(set(sizes)) >= LEAST, "over", self.over, f"needs at least {LEAST} different numbers of the models, has {sorted(set(sizes))}"
        )

    def names(self, scope: Scope) -> tuple[str, ...]:
        """The models."""
        return self.models or scope.models[self.parts[0]]

    def _size(self, scope: Scope, model: str) -> float:
        sizes = {scope.number(part, model, self.over) for part in self.parts}
        if len(sizes) > 1:
            raise ConfigError("over", self.over, f"must be one number in all parts, of {model} it is {sorted(sizes)}", "a fixed state")
        return sizes.pop()

    def estimate(self, results: Results, scope: Scope) -> Estimate:
        rising = sorted(self.parts, key=scope.lengths.__getitem__)
        x = np.array([self._size(scope, model) for model in self.names(scope)]) / (KIB if self.over == "state_bytes" else 1)
        located = thresholds(self._collapsed(rising, results, scope), np.array([float(scope.lengths[part]) for part in rising]))
        lines = [stats.linregress(x, row) for row in located.middle]
        censored, never = ~np.isfinite(located.high), located.low == 0
        judged = self._slope(x, lines, located) if self.estimates == "slope" else self._r2(lines, located)
        if (censored | never).mean() > 0.5:
            judged = Interval(judged.value, np.nan, np.nan, judged.n)
        note = f"{never.sum()} of {never.size} thresholds below the shortest length, {censored.sum()} above the longest"
        unit = "R²" if self.estimates == "r2" else f"tokens a {'KiB of state' if self.over == 'state_bytes' else self.over}"
        return Estimate(judged, unit, (note,), self._picture(x, located, lines, scope))

    def _collapsed(self, rising: list[str], results: Results, scope: Scope) -> Bools:
        """(seeds, models, lengths) of bool."""
        series = [Series(part=part, measure=self.measure, metric=self.metric, where=self.where) for part in rising]
        return np.array([[results.of(s, model) for s in series] for model in self.names(scope)]).transpose(2, 0, 1) > COLLAPSED

    def _slope(self, x: Array, lines: list[Any], located: Thresholds) -> Interval:
        """The mean slope: its spread over seeds and the grid's resolution; open where thresholds are only known to be longer."""
        pull = (x - x.mean()) / ((x - x.mean()) ** 2).sum()  # slope = sum of pull * threshold
        seeds = interval(np.array([line.slope for line in lines]))
        if seeds.n == 1:
            return seeds
        gaps = np.where(np.isfinite(located.high), located.high - located.low, 0.0).mean(0)
        resolution = float((pull**2 * gaps**2).sum()) / 12  # the variance of a uniform number is width^2 / 12
        half = math.hypot(seeds.high - seeds.value, student(seeds.n) * math.sqrt(resolution))
        pulls = pull[(~np.isfinite(located.high)).any(0)]
        low = -math.inf if (pulls < 0).any() else seeds.value - half
        return Interval(seeds.value, low, math.inf if (pulls > 0).any() else seeds.value + half, seeds.n)

    def _r2(self, lines: list[Any], located: Thresholds) -> Interval:
        """The mean R^2; without interval where thresholds are only known to be longer, or are all alike."""
        squares = interval(np.array([float(line.rvalue) ** 2 for line in lines]))
        if not np.isfinite(located.high).all():
            return Interval(squares.value, np.nan, np.nan, squares.n)
        return clipped(squares, 0.0, 1.0)

    def _picture(self, x: Array, located: Thresholds, lines: list[Any], scope: Scope) -> Picture:
        cells = [(s, m) for s in range(len(located.low)) for m in range(len(x))]
        names, middle = self.names(scope), located.middle
        points = tuple(
            Point(float(x[m]), float(middle[s, m]), names[m], float(located.low[s, m]), float(located.high[s, m])) for s, m in cells
        )
        at = np.linspace(x.min(), x.max(), CURVE_POINTS)
        band = over_seeds(np.stack([line.intercept + line.slope * at for line in lines]))
        return Picture(axis(self.over), "training length needed (tokens)", points, (Curve("least squares", list(at), band),))
