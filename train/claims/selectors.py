"""The numbers of results.csv that statements speak of: of every seed, by part, model, measure, metric and condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from blocks.errors import ConfigError
from train.claims.scope import Scope
from train.measure.results import ALL, Record
from zoo.measures import parts
from zoo.measures.shared.statistics import Array


@dataclass(frozen=True, kw_only=True)
class Series:
    """One number of each model."""

    part: str  # of the experiment
    measure: str  # its name in the part; training = the loss of the training's steps
    metric: str  # such as accuracy
    where: dict[str, Any] = field(default_factory=dict)  # keys of the condition, as many as tell it from the others

    def check(self, scope: Scope) -> None:
        """Raise ConfigError for a name that the experiment doesn't have."""
        scope.check_series(self.part, self.measure, self.metric)


@dataclass(frozen=True, kw_only=True)
class Cell(Series):
    """One number of one model."""

    model: str  # of the experiment

    def check(self, scope: Scope) -> None:
        """Raise ConfigError for a name that the experiment doesn't have."""
        super().check(scope)
        scope.check_model(self.part, self.model)


class Results:
    """The rows of the single seeds."""

    def __init__(self, records: Sequence[Record], seeds: Sequence[int]) -> None:
        self.seeds = tuple(str(seed) for seed in seeds)
        self.rows: dict[tuple[str, str, str, str], dict[str, dict[str, float]]] = {}
        for r in records:
            if r.seed != ALL:
                self.rows.setdefault((r.part, r.model, r.measure, r.metric), {}).setdefault(r.condition, {})[r.seed] = r.value

    def of(self, series: Series, model: str) -> Array:
        """(seeds,) a number of one model. Raises ConfigError, naming what there is, where results.csv lacks it."""
        conditions = self.rows.get((series.part, model, series.measure, series.metric), {})
        if not conditions:
            there = sorted({key[3] for key in self.rows if key[:3] == (series.part, model, series.measure)})
            rule = f"{series.measure} of {model} in part {series.part} has no such metric"
            raise ConfigError("metric", series.metric, rule, f"Metrics: {', '.join(there)}")
        found = conditions[_condition(series.where, list(conditions))]
        missing = [seed for seed in self.seeds if seed not in found]
        if missing:
            raise ConfigError("where", series.where, f"results.csv lacks seed {', '.join(missing)} of {model}")
        return np.array([found[seed] for seed in self.seeds])


def _condition(where: Mapping[str, Any], conditions: list[str]) -> str:
    """The one condition with these keys: no others if there is one, else the only one that has them among others."""
    wanted = {key: str(value) for key, value in where.items()}
    fitting = [c for c in conditions if all(key in parts(c) and _same(parts(c)[key], value) for key, value in wanted.items())]
    exact = [c for c in fitting if len(parts(c)) == len(wanted)]
    chosen = exact or fitting
    if len(chosen) == 1:
        return chosen[0]
    rule = "several conditions have these keys: give more" if chosen else "no condition has these keys"
    raise ConfigError("where", dict(where), rule, f"Conditions: {', '.join(repr(c) for c in (chosen or conditions))}")


def _same(a: str, b: str) -> bool:
    try:
        return float(a) == float(b)
    except ValueError:
        return a == b
