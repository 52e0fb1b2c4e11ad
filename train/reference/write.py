"""All reference pages as files of docs/reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from train.reference import catalogue, instruments, sections
from train.reference.api import api
from train.reference.page import Page, Prose, Rows, markdown
from train.reference.source import ROOT

FOLDER = ROOT / "docs" / "reference"
MADE = "<!-- Made by `python -m train.reference` from docstrings and field comments: change those. -->\n"
INTRO = "Made from the source by `python -m train.reference`; the same in the terminal:"


def pages() -> dict[str, str]:
    """Path under docs/reference -> Markdown."""
    made = {"README.md": index(), "api.md": markdown(api())}
    made |= _folder("blocks", instruments.block, catalogue.blocks(), "type")
    made |= _folder("tasks", instruments.task, catalogue.tasks(), "task")
    made |= _folder("measures", instruments.measure, catalogue.measures(), "measure")
    made |= {f"keys/{name}.md": markdown(sections.section(name)) for name in sections.SECTIONS}
    return {path: f"{text}\n{MADE}" for path, text in made.items()}


def write() -> list[Path]:
    """Write every page; the paths of those that changed or went."""
    new, changed = pages(), []
    for path, text in new.items():
        file = FOLDER / path
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            changed.append(file)
    old = [file for file in sorted(FOLDER.rglob("*.md")) if str(file.relative_to(FOLDER)) not in new]
    for file in old:
        file.unlink()
    return [*changed, *old]


def stale() -> list[str]:
    """The pages that are not what the source says now, those missing and those that should be gone included."""
    new = pages()
    there = {str(file.relative_to(FOLDER)): file.read_text(encoding="utf-8") for file in FOLDER.rglob("*.md")}
    return sorted(path for path in new.keys() | there.keys() if new.get(path) != there.get(path))


def index() -> str:
    """The start page of the reference."""
    keys = [(f"[{row['keys']}](keys/{row['keys']}.md)", row["of"]) for row in sections.places()]
    lists = [(f"[{name}]({name}/README.md)", text) for name, text in LISTS.items()]
    words = f"{INTRO} `zoo list blocks gated_delta`, `zoo list keys train`."
    rows = [*lists, *keys, ("[Python](api.md)", "the public names of zoo")]
    return f"# Reference\n\n{words}\n\n{_rows(('page', 'what is in it'), rows)}\n"


LISTS = {"blocks": "every type of block", "tasks": "every generated task", "measures": "every measure"}


def _folder(name: str, make: Callable[[str], Page], rows: Iterable[dict[str, Any]], key: str) -> dict[str, str]:
    listed, made = [], {}
    for row in rows:
        made[f"{name}/{row[key]}.md"] = markdown(make(row[key]))
        listed.append((f"[{row[key]}]({row[key]}.md)", row["summary"]))
    table = _rows((key, "what it is"), listed)
    return {f"{name}/README.md": f"# {name.capitalize()}\n\n{table}\n", **made}


def _rows(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return markdown(Page("", (Prose(""), Rows(headings, tuple(rows))))).split("\n\n")[-1].rstrip()
