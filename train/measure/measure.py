"""Measures on a model: which documents they read, and where their rows are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, cast

from blocks.errors import ConfigError, require
from train.data import parse_data
from train.data.batches import long_documents
from train.data.config import TaskData
from train.data.sources import Source, TaskSource, TextSource, load_corpus
from train.measure.resume_file import ResumeFile
from train.system.atomic_files import write_text
from zoo.config.model import ModelConfig
from zoo.config.schema import parse, plain
from zoo.measures import MEASURES
from zoo.measures.shared.base import MeasureConfig, Progress, Resumable, ResumeStore, Row
from zoo.measures.shared.condition import Condition
from zoo.model.model import Model

SPLIT = "test"  # measures read what neither training nor validation has seen


def parse_measure(
    name: str, spec: Any, place: str, train_length: int | None, bytes_per_token: float | None = None
) -> tuple[str, MeasureConfig]:
    """(type, Config) of one entry of `measures:`, {measure: TYPE, its fields}; the type is the entry's name if left out.

    A measure that needs the training length is given it, and one that reports bits per byte the bytes of a token (None: not known).
    Raises ConfigError.
    """
    require(isinstance(spec, Mapping), place, spec, "must be a mapping of the measure's fields, {} for its defaults")
    kind = spec.get("measure", name)
    require(kind in MEASURES, f"{place}.measure", kind, "there is no such measure", f"Measures: {', '.join(MEASURES)}")
    values = {key: value for key, value in spec.items() if key != "measure"}
    keys = {f.name for f in fields(MEASURES[kind].Config)}
    if "bytes_per_token" in keys and bytes_per_token is not None:
        values.setdefault("bytes_per_token", bytes_per_token)
    if "train_length" in keys and "train_length" not in values:
        require(
            train_length is not None, f"{place}.train_length", None, "is needed: the tokens of a training sequence", "train_length=2048"
        )
        values["train_length"] = train_length
    return kind, parse(MEASURES[kind].Config, values, place)


def bytes_per_token(source: Source | None) -> float | None:
    """Of the documents that measures read; None: not known, or they are generated."""
    corpus = source.corpus if isinstance(source, (TextSource, TaskSource)) else None
    return None if corpus is None else corpus.split(SPLIT).bytes_per_token


def check_measure(kind: str, config: MeasureConfig, source: Source, model: ModelConfig, place: str) -> None:
    """Raise ConfigError now for what a measure could not do once this model is trained on `source`."""
    try:
        config.check(model)
        reads = config.reads
        if reads is None:
            return
        corpus = source.corpus if isinstance(source, (TextSource, TaskSource)) else None
        if corpus is None:
            raise ConfigError("measure", kind, f"reads documents, and {source.label} is a generated task", "measure a part with text")
        documents = long_documents(corpus.split(SPLIT), reads.tokens + 1)
        rule = f"so many test documents have {reads.tokens} tokens, {reads.documents} are needed"
        require(len(documents) >= reads.documents, "documents", len(documents), rule, "shorter ones")
        total = sum(len(document.inputs) for document in documents)
        require(total >= reads.total, "documents", None, f"the test documents hold {total} tokens, {reads.total} are needed", "fewer texts")
    except ConfigError as error:
        raise error.within(place) from None


def measure(
    model: Model, data: Mapping[str, Any], kind: str, config: MeasureConfig, seed: int, progress: Progress | None, keep: ResumeStore
) -> list[Row]:
    """One measure of a model, on the test documents of the data it was trained on if it reads documents."""
    reads = config.reads
    documents = None if reads is None else _documents(data, reads.tokens)
    chosen = MEASURES[kind]
    if chosen.RESUMABLE:
        return list(cast(Resumable, chosen).run(model, config, seed, data=documents, progress=progress, keep=keep).rows)
    return list(chosen.run(model, config, seed, data=documents, progress=progress).rows)


def _documents(data: Mapping[str, Any], tokens: int) -> list[Any]:
    parsed = parse_data(data)
    text = parsed.text if isinstance(parsed, TaskData) else parsed
    if text is None:
        raise ConfigError("measures", None, "this measure reads documents, and the data are a generated task", "measure a part with text")
    whole = long_documents(load_corpus(text).split(SPLIT), tokens + 1)
    return [document.inputs for document in whole]


def measured(
    folder: Path,
    name: str,
    kind: str,
    config: Any,
    seed: int,
    work: Callable[[ResumeStore], list[Row]],
    changes: Mapping[str, Any] | None = None,
) -> list[Row]:
    """The rows of a measure of the model in `folder`: kept ones if they were measured with the same settings, or new ones.

    work: is given a file to go on from, if it was interrupted. changes: what else the rows depend on; None: the run as it is.
    """
    path = folder / "measures" / f"{name}.json"
    key = {"measure": kind, "seed": seed, "config": plain(asdict(config))} | ({"changes": plain(changes)} if changes else {})
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["of"] == json.loads(json.dumps(key)):
            return [Row(Condition.parse(condition), *numbers) for condition, *numbers in kept["rows"]]
    keeper = ResumeFile(path.with_suffix(".part"), key)
    rows = work(keeper)
    path.parent.mkdir(exist_ok=True)
    written = [[str(row.condition), *row[1:]] for row in rows]
    write_text(path, json.dumps({"of": key, "rows": written}))  # Python's JSON keeps NaN and infinity
    keeper.clear()
    return rows
