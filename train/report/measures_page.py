"""measures.html: the pictures and numbers of measures of one model, beside its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from train.measure.results import ALL, frame, record
from train.measure.target import Target
from train.report.figures import pictures
from train.report.figures.shared.picture import Picture
from train.report.html import as_html, write_page
from zoo.measures.shared.base import Row


def write_measures_page(target: Target, measures: Mapping[str, list[Row]]) -> Path:
    """measures.html beside the rows: every picture and every number. measures: type -> rows."""
    sections = [(measure, _pictures(target, measure, rows), rows) for measure, rows in measures.items()]
    folder = target.folder / "measures"
    folder.mkdir(exist_ok=True)
    changes = json.dumps(target.changes)
    return write_page("measures.html", folder / "measures.html", target=target, changes=changes, sections=sections)


def _pictures(target: Target, measure: str, rows: list[Row]) -> list[Picture]:
    """As a report draws them, for a single model: the intervals are those within it."""
    table = frame([record("", "", target.name, 0, measure, row)._replace(seed=ALL) for row in rows])
    return [as_html(picture) for picture in pictures(measure, measure, table, [target.name], target.train_length or 0)]
