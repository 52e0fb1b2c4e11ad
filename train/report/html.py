"""Pages from the templates beside this file: one self-contained HTML file each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from train.report.figures.shared.picture import Picture


def write_page(template: str, path: Path, **values: Any) -> Path:
    """The template with these values as the file `path`, which is returned."""
    page = Environment(loader=PackageLoader("train.report"), autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True)
    path.write_text(page.get_template(template).render(values), encoding="utf-8")
    return path


def as_html(picture: Picture) -> Picture:
    """A picture whose SVG, made here, is put into a page as it is."""
    return picture._replace(svg=Markup(picture.svg))
