"""results.csv: one row a model, seed, measure, condition and metric, and with seed `all` what the seeds say together."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from train.system.atomic_files import replacing
from zoo.measures.shared.base import Row
from zoo.measures.shared.condition import Condition
from zoo.measures.shared.statistics import Interval, mean_interval

COLUMNS = ("experiment", "model", "seed", "measure", "condition", "metric", "value", "low", "high", "n", "part")
ALL = "all"  # the seed of rows that join the seeds


class Record(NamedTuple):
    """A row of a measure as a line of results.csv. low, high: a 95 % interval, over examples within a seed, or over seeds
    where seed is `all`."""

    experiment: str
    model: str
    seed: str
    measure: str
    condition: Condition
    metric: str
    value: float
    low: float
    high: float
    n: int
    part: str


def record(experiment: str, part: str, model: str, seed: int, measure: str, row: Row) -> Record:
    """A measure's row of one run as a record."""
    return Record(experiment, model, str(seed), measure, row.condition, row.metric, row.value, row.low, row.high, row.n, part)


def joined(records: Iterable[Record]) -> list[Record]:
    """For every model, measure, condition and metric what the seeds say together; n counts the seeds.

    The mean with its t-interval; where a value is infinite (a collapse that never came) the median with the range.
    """
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for r in records:
        groups.setdefault((r.experiment, r.part, r.model, r.measure, r.condition, r.metric), []).append(r)
    return [seeds[0]._replace(seed=ALL, **_over_seeds([r.value for r in seeds])._asdict()) for seeds in groups.values()]


def _over_seeds(values: list[float]) -> Interval:
    if all(math.isfinite(v) for v in values):
        return mean_interval(values)
    low, middle, high = sorted(values)[0], sorted(values)[len(values) // 2], sorted(values)[-1]
    return Interval(middle, low, high, len(values))


def write(path: Path, records: Sequence[Record]) -> None:
    """Replace the file atomically."""
    with replacing(path) as fresh, fresh.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(records)  # conditions as text


def read(path: Path) -> list[Record]:
    """The records of a results file."""
    with path.open(newline="", encoding="utf-8") as file:
        return [_record(row) for row in csv.DictReader(file)]


def _record(row: dict[str, str]) -> Record:
    return Record(
        experiment=row["experiment"],
        model=row["model"],
        seed=row["seed"],
        measure=row["measure"],
        condition=Condition.parse(row["condition"]),
        metric=row["metric"],
        value=float(row["value"]),
        low=float(row["low"]),
        high=float(row["high"]),
        n=int(row["n"]),
        part=row["part"],
    )


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """The records as a table, with one more column `_KEY` for every key of their conditions; NaN where a condition lacks it."""
    table = pd.DataFrame(records, columns=list(COLUMNS))
    keys = pd.DataFrame([dict(r.condition) for r in records], index=table.index, dtype=object)
    return table.join(keys.add_prefix("_"))
