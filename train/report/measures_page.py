"""measures.html: the pictures and numbers of measures of one model, beside its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from train.measure.results import ALL, frame, record
from train.measure.target import Subject
from train.report.figures import PICTURES, Picture
from zoo.measures import Row


def draw(subject: Subject, found: Mapping[str, list[Row]]) -> Path:
    """measures.html beside the rows: every picture and every number of these measures."""
    sections = [(kind, _pictures(subject, kind, rows), rows) for kind, rows in found.items()]
    page = Environment(loader=PackageLoader("train.report"), autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True)
    html = page.get_template("measures.html").render(subject=subject, changes=json.dumps(subject.changes), sections=sections)
    out = subject.folder / "measures" / "measures.html"
    out.parent.mkdir(exist_ok=True)
    out.write_text(html, encoding="utf-8")
    return out


def _pictures(subject: Subject, kind: str, rows: list[Row]) -> list[Picture]:
    """As a report draws them, for a single model: the intervals are those within it."""
    table = frame([record("", "", subject.name, 0, kind, row)._replace(seed=ALL) for row in rows])
    drawn = PICTURES[kind].pictures(kind, table, [subject.name], subject.train_length or 0)
    return [picture._replace(svg=Markup(picture.svg)) for picture in drawn]  # our own SVG
