"""The rows of results.csv, collected from the folders of an experiment's runs."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from train.measure.measure import measured
from train.measure.results import Record, record
from train.plan.plan import Plan
from train.run.folder import run_folder
from zoo.measures.shared.base import ResumeStore, Row
from zoo.measures.shared.condition import Condition

CURVE_POINTS = 60  # of a training curve in results.csv


def collect(plan: Plan, folder: Path) -> list[Record]:
    """Every row of every run: its training curve and its measures."""
    records = []
    for run in plan.runs:
        own, name = run_folder(folder, run), plan.experiment.config.name
        for row in _training_rows(own):
            records.append(record(name, run.part, run.model, run.seed, "training", row))
        for measure, (kind, config) in run.measures.items():
            for row in measured(own, measure, kind, config, run.seed, _missing):
                records.append(record(name, run.part, run.model, run.seed, measure, row))
    return records


def _missing(keep: ResumeStore) -> list[Row]:
    raise RuntimeError("a measure has no rows: its run is not finished")


def _training_rows(folder: Path) -> Iterator[Row]:
    """The loss of some steps, the same ones in every run of the same length."""
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    stride = max(1, math.ceil(len(lines) / CURVE_POINTS))
    for line in lines[stride - 1 :: stride]:
        condition = Condition({"step": line["step"], "flops": line["flops"]})
        yield Row(condition, "loss", float(line["loss"]), math.nan, math.nan, 1)
