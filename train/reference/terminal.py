"""A reference page in the terminal: `zoo list WHAT NAME`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from blocks.errors import ConfigError
from train.reference import catalogue, instruments, sections
from train.reference.page import Code, Page, Prose, plain

T = TypeVar("T")
WHAT: dict[str, tuple[Callable[[], Iterable[str]], Callable[[str], Page]]] = {
    "blocks": (catalogue.block_types, instruments.block),
    "tasks": (catalogue.task_sources, instruments.task),
    "measures": (catalogue.measure_sources, instruments.measure),
    "keys": (lambda: (*sections.SECTIONS, *sections.ALSO), sections.section),
    "models": (lambda: _files("models"), lambda name: _yaml("models", name)),
    "experiments": (lambda: _files("experiments"), lambda name: _yaml("experiments", name)),
    "claims": (lambda: _files("claims"), lambda name: _yaml("claims", name)),
}


def page(what: str, name: str) -> str:
    """The page of a block, task, measure, group of keys, model, experiment or claim as plain text. Raises ConfigError for a wrong name."""
    names, make = _chosen("list", what, WHAT, "list")
    known = tuple(names())
    _chosen(f"list {what}", name, dict.fromkeys(known), what)
    return plain(make(name))


def _chosen(place: str, name: str, known: Mapping[str, T], what: str) -> T:
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(place, name, f"there is no such {what.removesuffix('s')}", f"{hint}There are: {', '.join(known)}")


def _files(folder: str) -> list[str]:
    return sorted(path.stem for path in (catalogue.CONFIGS / folder).rglob("*.yaml"))


def _yaml(folder: str, name: str) -> Page:
    """A YAML file: its first comment, then all of it."""
    path: Path = next(path for path in sorted((catalogue.CONFIGS / folder).rglob("*.yaml")) if path.stem == name)
    where = path.relative_to(catalogue.ROOT)
    return Page(str(where), (Prose(catalogue.first_comment(path)), Code(path.read_text(encoding="utf-8").rstrip(), "yaml")))
