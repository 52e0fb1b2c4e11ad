"""Trends of a metric over a number of the models: a rank correlation, a slope, a capacity curve."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from scipy import optimize, special, stats

from blocks.errors import one_of, require
from train.claims.estimate import Curve, Estimate, Picture, Point
from train.claims.intervals import clipped, interval, jackknife, over_seeds, scaled
from train.claims.scope import Scope
from train.claims.selectors import Results, Series
from zoo.measures.shared.statistics import Array, Interval

CURVE_POINTS = 60  # of a drawn curve
KIB = 1024
LABELS = {
    "state_bytes": "state (KiB)",
    "params": "parameters",
    "flops_train": "training FLOPs",
    "attention_share": "share of attention layers",
}


@dataclass(frozen=True, kw_only=True)
class Trend(Series):
    """A series over some models of a part."""

    LEAST: ClassVar[int] = 3  # different numbers of the models

    models: tuple[str, ...] | None = None  # names of models; null: all of the part
    over: str = "state_bytes"  # or params, flops_train, attention_share, a key of the models' YAML such as blocks.M.d_state
    scale: str = "linear"  # of `over`: linear | log2 (a slope is then one a doubling)

    def __post_init__(self) -> None:
        one_of("scale", self.scale, ("linear", "log2"))

    def check(self, scope: Scope) -> None:
        super().check(scope)
        for i, model in enumerate(self.models or ()):
            scope.check_model(self.part, model, f"models[{i}]")
        x = self._numbers(scope)
        require(
            len(set(x)) >= self.LEAST,
            "over",
            self.over,
            f"needs at least {self.LEAST} different numbers of the models, has {sorted(set(x))}",
        )
        require(self.scale == "linear" or min(x) > 0, "scale", self.scale, "needs numbers above 0", "linear")

    def names(self, scope: Scope) -> tuple[str, ...]:
        """The models."""
        return self.models or scope.models[self.part]

    def _numbers(self, scope: Scope) -> list[float]:
        return [scope.number(self.part, model, self.over) for model in self.names(scope)]

    def x(self, scope: Scope) -> Array:
        """(models,) the number that the trend goes over; state bytes in KiB, so that curves have handy parameters."""
        x = np.array(self._numbers(scope), dtype=np.float64)
        return x / KIB if self.over == "state_bytes" else x

    def steps(self, x: Array) -> Array:
        """x on the trend's scale."""
        return np.log2(x) if self.scale == "log2" else x

    @property
    def a_unit(self) -> str:
        """Of the slope."""
        name = "KiB of state" if self.over == "state_bytes" else self.over
        return f"a doubling of {'the state' if self.over == 'state_bytes' else self.over}" if self.scale == "log2" else f"a {name}"

    def y(self, results: Results, scope: Scope) -> Array:
        """(seeds, models) the metric."""
        return np.stack([results.of(self, model) for model in self.names(scope)], -1)

    def picture(self, x: Array, y: Array, scope: Scope, curves: tuple[Curve, ...] = ()) -> Picture:
        """The seeds as points, with fitted curves."""
        points = tuple(
            Point(float(a), float(b), name, float(b), float(b)) for row in y for a, b, name in zip(x, row, self.names(scope), strict=True)
        )
        where = ", ".join(f"{key} {value}" for key, value in self.where.items())
        return Picture(axis(self.over), f"{self.metric} ({where})" if where else self.metric, points, curves, self.scale == "log2")

    def none(self, x: Array, y: Array, scope: Scope, unit: str) -> Estimate:
        """Of numbers that no curve goes through."""
        notes = ("some numbers are not finite: no curve goes through them",)
        return Estimate(Interval(np.nan, np.nan, np.nan, len(y)), unit, notes, self.picture(x, y, scope))

    def along(self, x: Array) -> Array:
        """Where a curve is drawn."""
        steps = self.steps(x)
        even = np.linspace(steps.min(), steps.max(), CURVE_POINTS)
        return np.exp2(even) if self.scale == "log2" else even


def axis(over: str) -> str:
    """The label of an axis of a number of the models."""
    return LABELS.get(over, over)


@dataclass(frozen=True, kw_only=True)
class Rank(Trend):
    """The mean over seeds of the rank correlation between the number and the metric; 0 where all models are alike."""

    SUMMARY: ClassVar[str] = "the rank correlation of a metric with a number of the models"

    method: str = "spearman"  # of the rank correlation: spearman | kendall

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("method", self.method, ("spearman", "kendall"))

    def estimate(self, results: Results, scope: Scope) -> Estimate:
        x, y = self.x(scope), self.y(results, scope)
        correlate = {"spearman": stats.spearmanr, "kendall": stats.kendalltau}[self.method]
        each = np.array([float(correlate(x, row).statistic) if len(set(row)) > 1 else 0.0 for row in y])
        return Estimate(clipped(interval(each), -1.0, 1.0), f"{self.method} correlation", (), self.picture(x, y, scope))


@dataclass(frozen=True, kw_only=True)
class Slope(Trend):
    """The mean over seeds of the least squares slope."""

    SUMMARY: ClassVar[str] = "the least squares slope of a metric over a number of the models"

    def estimate(self, results: Results, scope: Scope) -> Estimate:
        x, y = self.x(scope), self.y(results, scope)
        unit = f"{self.metric} {self.a_unit}"
        if not np.isfinite(y).all():
            return self.none(x, y, scope, unit)
        lines = [stats.linregress(self.steps(x), row) for row in y]
        at = self.along(x)
        band = over_seeds(np.stack([line.intercept + line.slope * self.steps(at) for line in lines]))
        picture = self.picture(x, y, scope, (Curve("least squares", list(at), band),))
        return Estimate(interval(np.array([line.slope for line in lines])), unit, (), picture)


class Form(NamedTuple):
    """A family of curves. It is searched in parameters that may be any number."""

    names: tuple[str, ...]  # of the published parameters
    value: Callable[..., Array]  # (x, *searched parameters) -> y
    start: Callable[[Array, Array], tuple[float, ...]]
    published: Callable[..., tuple[float, ...]]  # of the searched ones


def _growth(x: Array, slope: float, rate: float, c: float) -> Array:
    """slope (e^(rate x) - 1) / rate + c: at rate 0 it is the straight line, so that the search meets no edge there."""
    return slope * x * special.exprel(rate * x) + c


def _growth_start(x: Array, y: Array) -> tuple[float, ...]:
    """e-fold over the range of x, through the first and the last mean."""
    low, high, rate = y[x == x.min()].mean(), y[x == x.max()].mean(), 1 / np.ptp(x)
    first, last = _growth(np.array([x.min(), x.max()]), 1.0, rate, 0.0)
    slope = (high - low) / (last - first)
    return float(slope), float(rate), float(low - slope * first)


FORMS = {
    "line": Form(
        ("slope", "intercept"),
        lambda x, slope, intercept: slope * x + intercept,
        lambda x, y: tuple(float(v) for v in np.polyfit(x, y, 1)),
        lambda slope, intercept: (slope, intercept),
    ),
    "exponential": Form(
        ("a", "b", "c"), _growth, _growth_start, lambda slope, rate, c: (slope / rate if rate else np.inf, float(np.exp(rate)), c)
    ),
}


@dataclass(frozen=True, kw_only=True)
class Fit(Trend):
    """A capacity curve through all seeds' points: a line, or a (b^x - 1) + c as in Stuffed Mamba (arXiv:2410.07145).

    estimate: aic = how much smaller this curve's AIC is than the other's (above 0: this one describes the points better, with its
    parameters counted); r2 = the share of the variance that it explains; or one of its parameters. x is in KiB for state bytes.
    """

    SUMMARY: ClassVar[str] = "a capacity curve, line or a (b^x - 1) + c: its AIC beside the other's, R^2, or a parameter"
    LEAST: ClassVar[int] = 4

    curve: str = "exponential"  # line | exponential: the other one is its rival
    estimates: str = "aic"  # aic | r2 | a, b, c of the exponential | slope, intercept of the line

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("curve", self.curve, tuple(FORMS))
        one_of("estimates", self.estimates, ("aic", "r2", *FORMS[self.curve].names))

    def estimate(self, results: Results, scope: Scope) -> Estimate:
        x, y = self.x(scope), self.y(results, scope)
        at = self.along(x)
        if not np.isfinite(y).all():
            return self.none(x, y, scope, self.unit)
        curves = tuple(
            Curve(name, list(at), jackknife(y, lambda rows, f=form: f.value(self.steps(at), *_fitted(f, self.steps(x), rows))))  # type: ignore[misc]
            for name, form in FORMS.items()
        )
        band = jackknife(y, lambda rows: np.array(self._judged(self.steps(x), rows)))
        factor = y.size if self.estimates == "aic" else 1
        judged = scaled(band, float(factor), len(y))
        return Estimate(judged, self.unit, (), self.picture(x, y, scope, curves))

    @property
    def unit(self) -> str:
        rival = next(name for name in FORMS if name != self.curve)
        return {"aic": f"AIC({rival}) - AIC({self.curve})", "r2": "R²"}.get(self.estimates, f"{self.estimates} of the {self.curve}")

    def _judged(self, x: Array, y: Array) -> float:
        """The estimate of some seeds; AIC a point, so that sets of seeds compare."""
        form = FORMS[self.curve]
        if self.estimates == "aic":
            rival = next(other for name, other in FORMS.items() if name != self.curve)
            return (_aic(rival, x, y) - _aic(form, x, y)) / y.size
        if self.estimates == "r2":
            spread = float(((y - y.mean()) ** 2).sum())
            return 1 - _residual(form, x, y) / spread if spread else float("nan")
        return form.published(*_fitted(form, x, y))[form.names.index(self.estimates)]


def _fitted(form: Form, x: Array, y: Array) -> Array:
    """The searched parameters of the curve through y (seeds, models); NaN where the search finds none."""
    points, values = np.tile(x, len(y)), y.ravel()
    with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):  # of steps of the search that go too far
        warnings.simplefilter("ignore", optimize.OptimizeWarning)  # of the parameters' covariance, which nothing reads
        try:
            return np.asarray(optimize.curve_fit(form.value, points, values, p0=form.start(points, values), maxfev=5000)[0])
        except RuntimeError:  # no convergence: an estimate that doesn't exist decides nothing
            return np.full(len(form.names), np.nan)


def _residual(form: Form, x: Array, y: Array) -> float:
    return float(((form.value(x, *_fitted(form, x, y)) - y) ** 2).sum())


def _aic(form: Form, x: Array, y: Array) -> float:
    """Akaike's criterion with normal errors of unknown variance (counted among the parameters)."""
    residual = max(_residual(form, x, y), float(np.finfo(np.float64).tiny))
    return float(y.size * np.log(residual / y.size) + 2 * (len(form.names) + 1))
