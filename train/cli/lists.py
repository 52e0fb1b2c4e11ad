"""`zoo list`: what there is, as tables or JSON, and what is known of one entry, as text. Only the list of models needs torch."""

from __future__ import annotations

import argparse
import json
from typing import Any

from blocks.errors import ConfigError, require
from train.cli import configs, suggestions

LISTS = ("blocks", "models", "tasks", "measures", "experiments", "claims")
WHAT = (*LISTS, "keys")


def show_list(arguments: argparse.Namespace) -> None:
    """Print the lists, or the page of one entry, that the arguments of `zoo list` ask for. Raises ConfigError."""
    what = arguments.what
    if what not in ("all", *WHAT):
        hint = suggestions.did_you_mean(what, WHAT)
        raise ConfigError("list", what, "there is no such list", f"{hint}Lists: {', '.join(WHAT)}")
    if what == "keys" or arguments.name is not None:
        _page(arguments)
    else:
        _lists(list(LISTS) if what == "all" else [what], arguments.length, as_json=arguments.json)


def _page(arguments: argparse.Namespace) -> None:
    require(not arguments.json, "--json", None, "is only of lists, a page is text")
    require(arguments.length is None, "--length", arguments.length, "is only of lists", "zoo list models --length N")
    from train.reference.terminal import page

    print(page(arguments.what, arguments.name or ""))


def _lists(names: list[str], length: int | None, *, as_json: bool) -> None:
    from train.cli import tables

    require(length is None or length >= 1, "--length", length, "must be at least 1")
    require(length is None or "models" in names, "--length", length, "is only of models", "zoo list models --length N")
    lists = {name: _rows(name, length) for name in names}
    if as_json:
        print(json.dumps(lists))
        return
    for name, rows in lists.items():
        _show_models(rows, length) if name == "models" else tables.listing(name, rows)


def _rows(name: str, length: int | None) -> list[dict[str, Any]]:
    """The rows of a list. Only those of models need torch."""
    if name == "models":
        from train.cli import models

        return models.rows(length)
    if name in ("experiments", "claims"):
        return configs.experiments() if name == "experiments" else configs.claims()
    from train.reference import catalogue

    rows: list[dict[str, Any]] = getattr(catalogue, name)()
    return rows


def _show_models(rows: list[dict[str, Any]], length: int | None) -> None:
    from train.cli import models

    models.show(rows, length)
