"""What all measures share: what a measure's file must hold, the rows that it returns, and the documents that it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from blocks.errors import ConfigError, require
from zoo.config.model import ModelConfig
from zoo.measures.shared.condition import Condition, written
from zoo.measures.shared.statistics import Interval
from zoo.model.model import Model

Progress = Callable[[int, int], None]  # (tokens read, tokens in all)
Documents = Sequence[Tensor]  # each (length,) int64


class Reads(NamedTuple):
    """What a measure reads of held-out text: at least so many documents of at least so many tokens."""

    documents: int
    tokens: int
    total: int = 0  # and so many tokens in all of them, where documents are joined


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """What the Config of every measure answers."""

    @property
    def reads(self) -> Reads | None:
        """The documents that are needed; None: none."""
        return None

    def check(self, model: ModelConfig) -> None:
        """Raise ConfigError for what can't be measured on such a model."""


class Row(NamedTuple):
    """One measured number. low, high: 95 % interval over examples or documents, within one seed; NaN where there is none."""

    condition: Condition  # empty: of the model as a whole
    metric: str
    value: float
    low: float
    high: float
    n: int  # independent examples or documents


@dataclass(frozen=True)
class Result:
    """All that a measure found. Curves are rows too."""

    rows: tuple[Row, ...]

    def row(self, metric: str, condition: str = "") -> Row:
        """The row of this metric under a condition, written as in results.csv: `length=128;depth=0.5`. Raises KeyError."""
        wanted = Condition.parse(condition)
        for row in self.rows:
            if row.metric == metric and row.condition == wanted:
                return row
        raise KeyError(f"no row {metric!r} under {condition!r}")

    def curve(self, metric: str, key: str) -> list[tuple[float, Row]]:
        """(number of `key`, row) of every row of this metric whose condition has `key`, rising."""
        points = [(float(row.condition[key]), row) for row in self.rows if row.metric == metric and key in row.condition]
        return sorted(points, key=lambda point: point[0])


def every_key(condition: Mapping[str, Any]) -> str:
    """A condition in words: `train_length 256 margin 0.05`."""
    return " ".join(f"{key} {written(value)}" for key, value in condition.items())


class Headline(NamedTuple):
    """A metric that comparisons are read by: one line of the summary table for each of its conditions."""

    metric: str
    unit: str  # of the number times `scale`
    scale: float = 1.0
    key: str | None = None  # only conditions that have this key; None: all
    without: tuple[str, ...] = ()  # no conditions that have one of these keys
    title: Callable[[Mapping[str, Any]], str] = every_key  # of a line, from its condition
    unless: str | None = None  # not shown where there are rows of this metric

    def heads(self, condition: Mapping[str, Any]) -> bool:
        """Whether the rows under this condition are shown."""
        return (self.key is None or self.key in condition) and not any(key in condition for key in self.without)


class Measure(Protocol):
    """What a file in zoo/measures holds: all that is known of the measure. train/report/figures/NAME.py, if there is one, draws it."""

    SUMMARY: str  # one line
    METRICS: tuple[str, ...]  # every metric that its rows may have; `*` stands for any text
    HEADLINE: tuple[Headline, ...]  # what the summary table and the terminal show of it; empty: nothing
    RESUMABLE: bool  # whether it can go on where it was interrupted: see Resumable
    Config: type[Any]  # a MeasureConfig, frozen, keyword-only, read by zoo.config.schema.parse; raises ConfigError on impossible sizes

    def run(self, model: Model, config: Any, seed: int, *, data: Documents | None = None, progress: Progress | None = None) -> Result:
        """Measure a model. `seed` draws examples and resamples, nothing else is random. `data`: documents, (length,) int64 each."""


class ResumeStore(Protocol):
    """Where a long measure keeps what it has read so far, so that it can go on after an interruption."""

    def load(self) -> Any:
        """What was saved last, on the CPU; None: nothing."""

    def save(self, tree: Any) -> None:
        """Offered after every piece: tensors, numbers and text in NamedTuples, tuples, lists and dicts, none of them changed later.
        A keeper may pass most of them by."""


class Resumable(Measure, Protocol):
    """A measure that can go on where it was interrupted, with the same rows bit for bit."""

    def run(
        self,
        model: Model,
        config: Any,
        seed: int,
        *,
        data: Documents | None = None,
        progress: Progress | None = None,
        keep: ResumeStore | None = None,
    ) -> Result:
        """As a Measure's. keep: asked once at the start, and only what the same call saved may be in it."""


def row(where: Mapping[str, Any], metric: str, interval: Interval) -> Row:
    """A row from an interval."""
    return Row(Condition(where), metric, *interval)


def exact_row(where: Mapping[str, Any], metric: str, value: float, n: int) -> Row:
    """A row of a number that has no sampling error (a size, a chance level)."""
    return Row(Condition(where), metric, value, value, value, n)


def some_documents(data: Documents | None, count: int | None) -> list[Tensor]:
    """The first `count` documents (None: all), int64. Raises ConfigError for a missing or malformed one, or one of less than 2 tokens."""
    if not data:
        raise ConfigError("data", None, "this measure reads documents", "give a list of (length,) int64 tensors")
    for i, document in enumerate(data[:count]):
        right = document.ndim == 1 and len(document) >= 2
        require(right, f"data.{i}", list(document.shape), "a document is one row of 2 token ids or more")
    return [document.long() for document in data[:count]]


def long_documents(data: Documents | None, count: int, length: int) -> Tensor:
    """The first `length` tokens of the first `count` documents, (count, length); fewer where fewer are given, 2 at least.

    Raises ConfigError for a missing, shorter or malformed document.
    """
    if data is None:
        raise ConfigError("data", None, "this measure reads documents", "give a list of (length,) int64 tensors")
    chosen = list(data[:count])
    require(len(chosen) >= 2, "documents", len(chosen), "at least 2 documents are needed for an interval")
    for i, document in enumerate(chosen):
        require(document.ndim == 1, f"data.{i}", list(document.shape), "a document is one row of token ids")
        require(len(document) >= length, f"data.{i}", len(document), f"is shorter than the {length} tokens to be read", "longer documents")
    return torch.stack([document[:length] for document in chosen]).long()
