"""The few numbers of each measure that a comparison is read by: the terminal's last table and the report's first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from train.measure.results import ALL, Record
from train.report.figures import PICTURES
from zoo.measures import parts
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
class Column:
    """One number for every model."""

    part: str
    measure: str  # its name in the experiment
    title: str  # the condition, such as `32 pairs`
    unit: str
    scale: float
    cells: dict[str, Cell]  # model -> cell


def columns(records: Sequence[Record], kinds: dict[tuple[str, str], str], reference: str) -> list[Column]:
    """The headline columns. kinds: (part, measure's name) -> its type."""
    found = []
    for (part, measure), kind in kinds.items():
        mine = [r for r in records if r.part == part and r.measure == measure]
        for metric, key, unit, scale in PICTURES[kind].HEADLINE:
            conditions = dict.fromkeys(r.condition for r in mine if r.metric == metric and _plain(r.condition, key))
            for condition in conditions:
                cells = _cells([r for r in mine if r.metric == metric and r.condition == condition], reference)
                found.append(Column(part, measure, _title(condition, key), unit, scale, cells))
            if conditions and kind == "loss":
                break  # bits a byte, or nats where there are none
    return found


def _plain(condition: str, key: str | None) -> bool:
    """Whether a condition heads a column: it has the key, and is not one depth of a passkey."""
    keys = parts(condition)
    return (key is None or key in keys) and not {"depth", "position", "token"} & (set(keys) - {key})


def _title(condition: str, key: str | None) -> str:
    keys = parts(condition)
    if key == "pairs":
        return f"{keys['pairs']} pairs, {keys['length']} tokens"
    if key == "length":
        return f"{keys['length']} tokens"
    if key == "tokens":
        return keys["tokens"]
    return "whole documents" if keys.get("window") == "document" else " ".join(f"{k} {v}" for k, v in keys.items())


def _cells(records: Sequence[Record], reference: str) -> dict[str, Cell]:
    seeds: dict[str, dict[str, float]] = {}
    for r in records:
        if r.seed != ALL:
            seeds.setdefault(r.model, {})[r.seed] = r.value
    cells = {}
    for r in records:
        if r.seed == ALL:
            cells[r.model] = Cell(r.value, r.low, r.high, r.n, _differs(seeds, r.model, reference))
    return cells


def _differs(seeds: dict[str, dict[str, float]], model: str, reference: str) -> bool | None:
    own, other = seeds.get(model, {}), seeds.get(reference, {})
    shared = sorted(own.keys() & other.keys())
    finite = all(math.isfinite(own[s]) and math.isfinite(other[s]) for s in shared)
    if model == reference or len(shared) < 2 or not finite:
        return None
    difference = paired_difference([own[s] for s in shared], [other[s] for s in shared])
    return difference.low > 0 or difference.high < 0
