"""Training and held-out batches of any `data:`, by `open_source(data, seed) -> Source`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Protocol

from blocks.errors import ConfigError, one_of, require
from train.data.batches import Batch, TextStream, validation_windows
from train.data.config import DataConfig, HubData, Reading, TaskData, TextData, TokensData, parse_data
from train.data.corpus import SPLITS, Corpus
from train.data.hf_dataset import Dataset, hub_corpus
from train.data.packaged import packaged
from train.data.text_folder import folder
from train.data.token_file import token_corpus
from train.data.tokenizer import retokenised
from zoo.tasks import HELD_OUT
from zoo.tasks.shared.real_text import Draw, drawing

SHOWN = 5  # names of skipped files that are listed


class Source(Protocol):
    """Training batches and held-out ones. Runs are comparable where label and fingerprint are equal."""

    label: str
    fingerprint: str  # SHA-256 of the data, hexadecimal
    vocab_size: int
    lengths: tuple[int, ...]  # batch i has rows of lengths[i % len(lengths)] tokens

    @property
    def length(self) -> int:
        """Tokens of the longest rows."""

    def batch(self, step: int, batch_size: int) -> Batch:
        """Training batch `step`: a pure function of (seed, step, batch_size)."""

    def held_out(self, count: int, split: str = "validation") -> dict[str, Batch]:
        """`count` rows that training never sees, the same for every seed, a condition: split is validation or test."""


class TextSource:
    """Batches from a corpus."""

    def __init__(self, corpus: Corpus, reading: Reading, seed: int = 0) -> None:
        self.corpus, self.reading = corpus, reading
        self.stream = TextStream(corpus.train, reading.length, seed, reading.mode)
        self.label, self.fingerprint, self.vocab_size = corpus.label, corpus.fingerprint, corpus.vocab_size
        self.lengths: tuple[int, ...] = (reading.length,)
        for split in SPLITS[1:]:  # too little text to measure on is an error now, not after the training
            if split == "validation" or corpus.split(split).n_documents:
                self.held_out(1, split)

    @property
    def length(self) -> int:
        return self.reading.length

    def batch(self, step: int, batch_size: int) -> Batch:
        return self.stream.batch(step, batch_size)

    def held_out(self, count: int, split: str = "validation") -> dict[str, Batch]:
        """Fixed windows inside documents; packed rows where training packs."""
        one_of("split", split, SPLITS[1:])
        part = self.corpus.split(split)
        try:
            if self.reading.mode == "window":
                windows = validation_windows(part, self.length, count)
                return {"text": Batch(windows.inputs, windows.labels, None)}
            return {"text": TextStream(part, self.length, 0, "packed").batch(0, count)}
        except ConfigError as error:
            raise ConfigError(error.place, error.value, f"{split}: {error.rule}", error.alternatives) from None


class TaskSource:
    """Batches of a generated task, going round its mix. Real text comes from the split that the batches are for."""

    def __init__(self, data: TaskData, seed: int = 0, corpus: Corpus | None = None) -> None:
        require(seed >= 0, "seed", seed, "must be 0 or more")
        self.data, self.seed, self.corpus = data, seed, corpus
        self._draws = [self._drawing(config, "train") for config in data.mix]
        for draw in (*self._draws, *self._held_out("validation").values()):
            draw(seed, 0, 1)  # what can't be drawn is an error now
        self.label = data.task if corpus is None else f"{data.task} in {corpus.label}"
        of = (data.task, data.mix) if corpus is None else (data.task, data.mix, corpus.fingerprint)
        self.fingerprint = hashlib.sha256(repr(of).encode()).hexdigest()
        self.vocab_size = int(data.mix[0].vocab_size)
        self.lengths: tuple[int, ...] = tuple(config.length for config in data.mix)

    @property
    def length(self) -> int:
        return max(self.lengths)

    def batch(self, step: int, batch_size: int) -> Batch:
        require(step >= 0, "step", step, "must be 0 or more")
        drawn = self._draws[step % len(self._draws)](self.seed, step * batch_size, batch_size)
        return Batch(drawn.inputs, drawn.labels, None)

    def held_out(self, count: int, split: str = "validation") -> dict[str, Batch]:
        """One entry a condition of `test`, named by what differs among them, such as `length=128 pairs=8`."""
        one_of("split", split, SPLITS[1:])
        start = HELD_OUT * SPLITS.index(split)
        drawn = {name: draw(0, start, count) for name, draw in self._held_out(split).items()}
        return {name: Batch(one.inputs, one.labels, None) for name, one in drawn.items()}

    def _held_out(self, split: str) -> dict[str, Draw]:
        return {name: self._drawing(config, split) for name, config in _named(self.data.test).items()}

    def _drawing(self, config: Any, split: str) -> Draw:
        part = None if self.corpus is None else self.corpus.split(split)
        documents = None if part is None else [part.document(i) for i in range(part.n_documents)]
        try:
            return drawing(self.data.task, config, documents)
        except ConfigError as error:
            raise error if part is None else ConfigError(error.place, error.value, f"{split}: {error.rule}", error.alternatives) from None


def reading_lines(source: Source) -> list[str]:
    """What to tell the user of how a source reads its documents: files, tokens of each split, what training never reaches."""
    corpus = source.corpus if isinstance(source, (TextSource, TaskSource)) else None
    if corpus is None:
        return []
    report, splits = corpus.report, [(name, corpus.split(name)) for name in SPLITS]
    lines = [f"{len(report.read):,} files read"] if report.read else []
    lines += [f"{len(names):,} skipped, {why}: {_first(names)}" for why, names in report.reasons().items()]
    lines.append("; ".join(f"{name} {split.n_tokens:,} tokens in {split.n_documents:,} documents" for name, split in splits))
    if isinstance(source, TextSource):
        lines += source.stream.limits()
    return [*lines, *report.notes]


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _named(conditions: tuple[Any, ...]) -> dict[str, Any]:
    keys = [f.name for f in fields(conditions[0])]
    differ = [k for k in keys if len({getattr(c, k) for c in conditions}) > 1] or ["length"]
    return {" ".join(f"{k}={getattr(c, k)}" for k in differ): c for c in conditions}


def open_source(data: Any, seed: int = 0, place: str = "data") -> Source:
    """The source of a `data:` mapping (or a parsed DataConfig). Raises ConfigError, its place under `place`, before any training."""
    config = data if isinstance(data, (TextData, TokensData, HubData, TaskData)) else parse_data(data, place)
    try:
        if isinstance(config, TaskData):
            return TaskSource(config, seed, None if config.text is None else load_corpus(config.text))
        return TextSource(load_corpus(config), config, seed)
    except ConfigError as error:
        raise error.within(place) from None


def load_corpus(config: DataConfig) -> Corpus:
    """The corpus of a DataConfig that has one."""
    match config:
        case TextData():
            corpus = packaged(config.corpus) if config.corpus is not None else folder(str(config.path))
            return corpus if config.tokenizer is None else retokenised(corpus, config.tokenizer, config.separator)
        case TokensData():
            return token_corpus(config.path, config.vocab_size, config.dtype, config.separator)
        case HubData():
            return hub_corpus(Dataset(**{f.name: getattr(config, f.name) for f in fields(Dataset)}), config.tokenizer, config.separator)
    raise ConfigError("kind", type(config).__name__, "has no corpus", "kinds: text, tokens, hub")
