"""Measures on a trained run: which documents they read, where their rows are kept, and `zoo measure`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress as RichProgress
from rich.progress import TaskID
from rich.table import Table

from blocks.base import ConfigError, require
from train.config import plain
from train.data import open_source, parse_data
from train.data.configs import TaskData
from train.data.sources import Source, TextSource, load_corpus
from train.data.streams import long_documents
from train.files import write_text
from zoo.config import ModelConfig
from zoo.measures import MEASURES, MeasureConfig, Row
from zoo.model import Model
from zoo.schema import dotted, load_yaml, parse
from zoo.weights import load

SPLIT = "test"  # measures read what neither training nor validation has seen


def parse_measure(name: str, spec: Any, place: str, train_length: int) -> tuple[str, MeasureConfig]:
    """(type, Config) of one entry of `measures:`, {measure: TYPE, its fields}; the type is the entry's name if left out.

    A measure that needs the training length is given it. Raises ConfigError.
    """
    require(isinstance(spec, Mapping), place, spec, "must be a mapping of the measure's fields, {} for its defaults")
    kind = spec.get("measure", name)
    require(kind in MEASURES, f"{place}.measure", kind, "no such measure", f"Measures: {', '.join(MEASURES)}")
    values = {key: value for key, value in spec.items() if key != "measure"}
    if "train_length" in {f.name for f in fields(MEASURES[kind].Config)}:
        values = {"train_length": train_length} | values
    return kind, parse(MEASURES[kind].Config, values, place)


def check_measure(kind: str, config: MeasureConfig, source: Source, model: ModelConfig, place: str) -> None:
    """Raise ConfigError now for what a measure could not do once this model is trained on `source`."""
    try:
        config.check(model)
        reads = config.reads
        if reads is None:
            return
        if not isinstance(source, TextSource):
            raise ConfigError("measure", kind, f"reads documents, and {source.label} is a generated task", "measure a part with text")
        count = len(long_documents(source.corpus.split(SPLIT), reads.tokens + 1))
        rule = f"so many test documents have {reads.tokens} tokens, {reads.documents} are needed"
        require(count >= reads.documents, "documents", count, rule, "shorter ones")
    except ConfigError as error:
        raise error.within(place) from None


def measure(
    model: Model, data: Mapping[str, Any], kind: str, config: MeasureConfig, seed: int, progress: Callable[[int, int], None] | None
) -> list[Row]:
    """One measure of a model, on the test documents of the data it was trained on if it reads documents."""
    reads = config.reads
    documents = None if reads is None else _documents(data, reads.tokens)
    return list(MEASURES[kind].run(model, config, seed, data=documents, progress=progress).rows)


def _documents(data: Mapping[str, Any], tokens: int) -> list[Any]:
    parsed = parse_data(data)
    if isinstance(parsed, TaskData):
        raise ConfigError("measures", None, "this measure reads documents, and the data are a generated task", "measure a part with text")
    whole = long_documents(load_corpus(parsed).split(SPLIT), tokens + 1)
    return [document.inputs for document in whole]


def measured(folder: Path, name: str, kind: str, config: Any, seed: int, work: Callable[[], list[Row]]) -> list[Row]:
    """The rows of a measure of the run in `folder`: kept ones if they were measured with the same config, or new ones."""
    path = folder / "measures" / f"{name}.json"
    key = {"measure": kind, "seed": seed, "config": plain(asdict(config))}
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["of"] == json.loads(json.dumps(key)):
            return [Row(*row) for row in kept["rows"]]
    rows = work()
    path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps({"of": key, "rows": [list(row) for row in rows]}))  # Python's JSON keeps NaN and infinity
    return rows


def measure_run(folder: str | Path, names: list[str], overrides: list[str]) -> None:
    """`zoo measure`: measure a trained run and print the rows. Overrides are fields of the measures."""
    folder = Path(folder)
    values = load_yaml(folder / "config.yaml")
    model = load(folder)
    length = open_source(values["data"], values["seed"]).length
    changes = dotted(overrides)
    for kind in names or ["loss"]:
        _, config = parse_measure(kind, {**changes.get(kind, changes), "measure": kind}, kind, length)
        with RichProgress(console=Console(stderr=True), transient=True) as bar:
            rows = measure(model, values["data"], kind, config, values["seed"], partial(_told, bar, bar.add_task(kind)))
        _print(kind, rows)


def _told(bar: RichProgress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _print(kind: str, rows: list[Row]) -> None:
    table = Table(title=kind, title_justify="left", box=None, header_style="bold")
    for heading in ("condition", "metric", "value", "95 % interval", "n"):
        table.add_column(heading, justify="left" if heading in ("condition", "metric") else "right")
    for row in rows:
        table.add_row(row.condition, row.metric, f"{row.value:.4g}", f"{row.low:.4g} .. {row.high:.4g}", str(row.n))
    Console().print(table)
