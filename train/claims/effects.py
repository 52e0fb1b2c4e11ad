"""Effects of single cells: a value, the difference and the ratio of two. The seeds are paired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from blocks.errors import ConfigError
from train.claims.estimate import Estimate
from train.claims.intervals import interval
from train.claims.scope import Scope
from train.claims.selectors import Cell, Results
from zoo.config.schema import merge, parse
from zoo.measures.shared.statistics import Interval


@dataclass(frozen=True, kw_only=True)
class Value(Cell):
    """The mean over seeds of a cell."""

    SUMMARY: ClassVar[str] = "a cell"

    def estimate(self, results: Results, scope: Scope) -> Estimate:
        return Estimate(interval(results.of(self, self.model)), self.metric)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The mean over seeds of `of` - `minus`."""

    SUMMARY: ClassVar[str] = "a cell minus another, paired over seeds"

    of: Cell
    minus: dict[str, Any]  # what is different in the other cell, such as {model: small}

    def check(self, scope: Scope) -> None:
        _check_both(self.of, self.minus, "minus", scope)

    def estimate(self, results: Results, scope: Scope) -> Estimate:
        other = _changed(self.of, self.minus, "minus")
        return Estimate(interval(results.of(self.of, self.of.model) - results.of(other, other.model)), self.of.metric)


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """The geometric mean over seeds of `of` / `to`: Student's t on the logarithms. Only of numbers above 0."""

    SUMMARY: ClassVar[str] = "a cell over another, paired over seeds"

    of: Cell
    to: dict[str, Any]  # what is different in the other cell, such as {model: small}

    def check(self, scope: Scope) -> None:
        _check_both(self.of, self.to, "to", scope)

    def estimate(self, results: Results, scope: Scope) -> Estimate:
        other = _changed(self.of, self.to, "to")
        above, below = results.of(self.of, self.of.model), results.of(other, other.model)
        if not (np.minimum(above, below) > 0).all():
            none = Interval(float(above.mean() / below.mean()) if below.mean() else np.nan, np.nan, np.nan, len(above))
            return Estimate(none, "times", ("a ratio has an interval only where all numbers are above 0",))
        logs = interval(np.log(above / below))
        return Estimate(Interval(float(np.exp(logs.value)), float(np.exp(logs.low)), float(np.exp(logs.high)), logs.n), "times")


def _changed(of: Cell, changes: Mapping[str, Any], place: str) -> Cell:
    return parse(Cell, merge(asdict(of), changes), place)


def _check_both(of: Cell, changes: Mapping[str, Any], place: str, scope: Scope) -> None:
    for cell, where in ((of, "of"), (_changed(of, changes, place), place)):
        try:
            cell.check(scope)
        except ConfigError as error:
            raise error.within(where) from None
    if _changed(of, changes, place) == of:
        raise ConfigError(place, dict(changes), "is the same cell as of", "say what is different, such as {model: ...}")
