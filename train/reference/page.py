"""A page as a list of parts, and its two forms: Markdown for docs/, plain text for the terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from train.reference.fields import Field

WIDTH = 100  # of plain text
MARKS = re.compile(r"[*<`\[\]~$]|(?<!\w)_|_(?!\w)")  # what would be markup; not an underscore inside a name


@dataclass(frozen=True)
class Heading:
    """Of a section."""

    text: str


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Code:
    """Lines that stay as they are."""

    text: str
    language: str = "text"


@dataclass(frozen=True)
class Keys:
    """The fields of a dataclass or NamedTuple; bare: without type and default, as a state has them."""

    fields: tuple[Field, ...]
    bare: bool = False


@dataclass(frozen=True)
class Rows:
    """A table."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Part = Heading | Prose | Code | Keys | Rows


@dataclass(frozen=True)
class Page:
    """A title and what follows it."""

    title: str
    parts: tuple[Part, ...]


def described(docstring: str) -> list[Part]:
    """A docstring as paragraphs, equations and tables as they are."""
    return [_paragraph(text) for text in re.split(r"\n[ \t]*\n", docstring.strip("\n")) if text.strip()]


def keys(fields: Sequence[Field], *, bare: bool = False) -> Keys:
    """A table of fields."""
    return Keys(tuple(fields), bare)


def _paragraph(text: str) -> Part:
    lines = text.split("\n")
    aligned = any(line.startswith("  ") or re.search(r"\S {3,}\S", line) for line in lines)
    full = all(len(line) >= 70 for line in lines[:-1])
    if aligned or not full or _is_equation(text):
        return Code(textwrap.dedent(text))
    return Prose(" ".join(lines))


def _is_equation(text: str) -> bool:
    return text.count("\n") == 0 and " = " in text and not text.rstrip().endswith(".")


def markdown(page: Page) -> str:
    """The page as GitHub and mkdocs show it."""
    return "\n\n".join([f"# {page.title}", *(_markdown(part) for part in page.parts)]) + "\n"


def _markdown(part: Part) -> str:
    match part:
        case Heading(text):
            return f"## {text}"
        case Prose(text):
            return escaped(text)
        case Code(text, language):
            return f"```{language}\n{text}\n```"
        case Keys(fields, bare=True):
            return _table(("field", "what it holds"), [(f"`{f.name}`", escaped(f.words)) for f in fields])
        case Keys(fields):
            return _table(("key", "type", "default", "meaning"), [_key(field) for field in fields])
        case Rows(headings, rows):
            return _table(headings, [tuple(cell if "](" in cell else escaped(cell) for cell in row) for row in rows])


def _key(field: Field) -> tuple[str, ...]:
    default = "**required**" if field.default is None else f"`{field.default_text}`"
    return f"`{field.name}`", field.type, default, escaped(field.meaning)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str) -> str:
    """Plain words as Markdown: nothing in them is markup but `code`."""
    return "".join(part if part.startswith("`") else MARKS.sub(r"\\\g<0>", part) for part in re.split(r"(`[^`]+`)", text))


def plain(page: Page) -> str:
    """The page as a terminal shows it."""
    return "\n\n".join([page.title, *(_plain(part) for part in page.parts)])


def _plain(part: Part) -> str:
    match part:
        case Heading(text):
            return f"{text}\n{'-' * len(text)}"
        case Prose(text):
            return textwrap.fill(text, WIDTH)
        case Code(text, _):
            return textwrap.indent(text, "    ")
        case Keys(fields, bare):
            return "\n".join(_plain_field(field, bare) for field in fields)
        case Rows(headings, rows):
            return _columns([headings, *rows])


def _plain_field(field: Field, bare: bool) -> str:
    words = textwrap.fill(field.words if bare else field.meaning, WIDTH, initial_indent="      ", subsequent_indent="      ")
    head = (
        f"  {field.name}"
        if bare
        else f"  {field.name}: {field.type}" + (", required" if field.default is None else f" = {field.default_text}")
    )
    return f"{head}\n{words}"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
