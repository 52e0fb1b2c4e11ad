"""What an effect yields: an estimate with its interval, what must be known to read it, and the numbers of its picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from train.claims.intervals import Band
from train.claims.scope import Scope
from train.claims.selectors import Results
from zoo.measures.shared.statistics import Array, Interval


class Point(NamedTuple):
    """A number of one seed."""

    x: float
    y: float
    model: str
    low: float  # = y but where y is only known to lie in low .. high
    high: float  # infinite: at least low


class Curve(NamedTuple):
    """A fitted curve with its 95 % band over seeds."""

    name: str
    x: list[float]
    band: Band


@dataclass(frozen=True)
class Picture:
    """A trend: points and fitted curves."""

    x: str  # the axis' label with its unit
    y: str
    points: tuple[Point, ...]
    curves: tuple[Curve, ...] = ()
    log2: bool = False  # the x axis

    def as_dict(self) -> dict[str, Any]:
        """JSON's: not finite = null."""
        curves = [{"name": c.name, "x": list(c.x)} | {key: finite_list(getattr(c.band, key)) for key in Band._fields} for c in self.curves]
        points = [{key: finite(value) for key, value in p._asdict().items()} for p in self.points]
        return {"x": self.x, "y": self.y, "log2": self.log2, "points": points, "curves": curves}


def finite(value: Any) -> Any:
    """null for a number that JSON doesn't have."""
    return value if isinstance(value, str) or np.isfinite(value) else None


def finite_list(values: Array) -> list[float | None]:
    return [finite(float(value)) for value in values]


@dataclass(frozen=True)
class Estimate:
    """An effect's size. interval: 95 % over seeds; NaN bounds decide nothing, infinite ones are open."""

    interval: Interval
    unit: str
    notes: tuple[str, ...] = field(default=())
    picture: Picture | None = None


class Effect(Protocol):
    """A type of effect: a frozen keyword-only dataclass of its fields in the YAML."""

    SUMMARY: ClassVar[str]  # one line

    def check(self, scope: Scope) -> None:
        """Raise ConfigError, before anything is trained, for what could not be estimated."""

    def estimate(self, results: Results, scope: Scope) -> Estimate:
        """The effect in these results. Raises ConfigError for a cell that isn't there."""
