"""The few numbers of each measure that a comparison is read by: the terminal's last table and the report's first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from train.measure.results import ALL, Record
from zoo.measures import MEASURES
from zoo.measures.shared.base import Headline
from zoo.measures.shared.statistics import paired_difference


@dataclass(frozen=True)
class Cell:
    """One number of one model: over seeds, with its 95 % interval, and whether it differs from the reference's."""

    value: float
    low: float
    high: float
    seeds: int
    differs: bool | None  # the paired difference over seeds excludes 0; None = it is the reference, or a single seed

    def text(self, scale: float = 1.0) -> str:
        """`12.3 ±0.4`, the half-width of the interval; `*` where it differs from the reference."""
        value = "none" if math.isinf(self.value) else _short(self.value * scale)
        half = (self.high - self.low) / 2 * scale
        spread = f" ±{_short(half)}" if math.isfinite(half) else ""
        if math.isinf(self.high) and math.isfinite(self.value):
            spread = f" ({_short(self.low * scale)} .. none)"
        return value + spread + (" *" if self.differs else "")


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@dataclass(frozen=True)
class Line:
    """One line of the table: a number of every model."""

    part: str
    measure: str  # its name in the experiment
    title: str  # the condition, such as `32 pairs`
    unit: str
    scale: float
    cells: dict[str, Cell]  # model -> cell


def summary(records: Sequence[Record], measures: Mapping[tuple[str, str], str], reference: str) -> list[Line]:
    """The table's lines, as each measure's HEADLINE says. measures: (part, name in the experiment) -> type."""
    lines: list[Line] = []
    for (part, name), measure in measures.items():
        own = [r for r in records if r.part == part and r.measure == name]
        metrics = {r.metric for r in own}
        for headline in MEASURES[measure].HEADLINE:
            if headline.unless not in metrics:
                lines += _lines([r for r in own if r.metric == headline.metric], headline, reference)
    return lines


def _lines(records: Sequence[Record], headline: Headline, reference: str) -> Iterator[Line]:
    """A line a condition. records: of one measure and metric."""
    for condition in dict.fromkeys(r.condition for r in records if headline.heads(r.condition)):
        same = [r for r in records if r.condition == condition]
        title = headline.title(condition)
        yield Line(same[0].part, same[0].measure, title, headline.unit, headline.scale, _cells(same, reference))


def _cells(records: Sequence[Record], reference: str) -> dict[str, Cell]:
    seeds: dict[str, dict[str, float]] = {}
    for r in records:
        if r.seed != ALL:
            seeds.setdefault(r.model, {})[r.seed] = r.value
    return {r.model: Cell(r.value, r.low, r.high, r.n, _differs(seeds, r.model, reference)) for r in records if r.seed == ALL}


def _differs(seeds: dict[str, dict[str, float]], model: str, reference: str) -> bool | None:
    own, other = seeds.get(model, {}), seeds.get(reference, {})
    shared = sorted(own.keys() & other.keys())
    finite = all(math.isfinite(own[s]) and math.isfinite(other[s]) for s in shared)
    if model == reference or len(shared) < 2 or not finite:
        return None
    return paired_difference([own[s] for s in shared], [other[s] for s in shared]).excludes(0.0)
