"""The batch that every task returns, the interface of a task, and random numbers addressed by example.

Every number is a pure function of (key, example, column): Philox is a counter-mode generator, so example 10 000 costs no
more than example 0, and batches may be drawn in any order. Only raw 64-bit words are taken from numpy, whose streams are
promised to stay; the distributions are made here, so that no release of numpy can change a task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from blocks.errors import require

IGNORE = -100  # label of a position that is not scored
HELD_OUT = 1 << 40  # first example kept for evaluation: training counts up from 0 and never gets there


class Batch(NamedTuple):
    """Examples of a task. b examples, t time."""

    inputs: Tensor  # (b, t) int64 token ids
    labels: Tensor  # (b, t) int64: what must be predicted next at this position; IGNORE = not scored
    info: dict[str, np.ndarray]  # what varies among examples: (b,) each, or (b, t) where it belongs to a position


class TextNeeds(NamedTuple):
    """Real text that a condition reads: at least so many documents of at least so many bytes, separators included."""

    documents: int
    bytes: int


class ReadsText:
    """What a task's Config adds where its conditions can read real text."""

    def text_needs(self) -> TextNeeds | None:
        """The real text that this condition asks for; None: none."""
        raise NotImplementedError

    def text_arguments(self, texts: Sequence[bytes]) -> dict[str, Any]:
        """The documents (bytes, no separators) as keyword arguments of the task's `generate`."""
        raise NotImplementedError


class Task(Protocol):
    """A module of zoo.tasks."""

    SUMMARY: str  # one line
    Config: type[Any]  # frozen dataclass of sizes; raises ConfigError on impossible ones

    def generate(self, config: Any, seed: int, start: int, count: int) -> Batch:
        """Examples start .. start+count-1 of the task's endless sequence under this seed."""

    def chance(self, config: Any) -> float:
        """Exact-match rate of the best guess that ignores what the query asks for."""


def uniforms(key: tuple[Any, ...], start: int, count: int, width: int) -> np.ndarray:
    """(count, width) float64 in [0, 1): row i belongs to example start+i of the stream named by `key` (its repr)."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    blocks = -(-width // 4)  # Philox yields four words a counter step
    source = np.random.Philox(key=np.frombuffer(digest[:16], "<u8").astype(np.uint64), counter=start * blocks)
    words = source.random_raw(count * blocks * 4).reshape(count, blocks * 4)[:, :width]
    return (words >> np.uint64(11)) * 2.0**-53


def integers(u: np.ndarray, high: int) -> np.ndarray:
    """Uniform int64 in [0, high) from uniforms."""
    return (u * high).astype(np.int64)


def distinct(u: np.ndarray, high: int) -> np.ndarray:
    """(n, k) int64 from uniforms (n, k): each row k different numbers of [0, high), in random order (partial Fisher-Yates)."""
    n, k = u.shape
    columns = np.arange(n)
    deck = np.tile(np.arange(high, dtype=np.int32)[:, None], (1, n))  # a deck a column: each card's row is contiguous
    for i in range(k):
        j = i + integers(u[:, i], high - i)
        drawn = deck[j, columns]
        deck[j, columns] = deck[i]
        deck[i] = drawn
    return deck[:k].T.astype(np.int64)


def weighted(u: np.ndarray, weights: np.ndarray, k: int) -> np.ndarray:
    """(n, k) int64 from uniforms (n, s): k different columns drawn one after the other with p proportional to `weights` (s,).

    The k smallest of independent exponentials of rate `weights`, in rising order, have exactly that law.
    """
    times = -np.log1p(-u) / weights
    first = np.argpartition(times, k - 1, axis=1)[:, :k] if k < u.shape[1] else np.tile(np.arange(k), (len(u), 1))
    order = np.argsort(np.take_along_axis(times, first, 1), axis=1, kind="stable")
    return np.take_along_axis(first, order, 1)


def subset(u: np.ndarray, high: int) -> np.ndarray:
    """(n, k) int64 from uniforms (n, k): each row k different numbers of [0, high) in rising order, whatever `high` costs (Floyd)."""
    n, k = u.shape
    chosen = np.full((n, k), -1, dtype=np.int64)
    for i in range(k):
        top = high - k + i
        drawn = integers(u[:, i], top + 1)
        chosen[:, i] = np.where((chosen[:, :i] == drawn[:, None]).any(1), top, drawn)
    return np.sort(chosen, axis=1)


def fill(kind: str, u: np.ndarray, vocab_size: int, avoid: np.ndarray) -> np.ndarray:
    """(b, t) filler ids from uniforms (b, t).

    zero: id 0. random: any id, the query keys included (Zoology's default). noise: any id but the row of `avoid` (b, k), distinct ids.
    """
    if kind == "zero":
        return np.zeros(u.shape, dtype=np.int64)
    if kind == "random":
        return integers(u, vocab_size)
    ranks = integers(u, vocab_size - avoid.shape[1])
    below = np.sort(avoid, axis=1) - np.arange(avoid.shape[1])  # how many allowed ids lie below each avoided one
    return np.stack([row + np.searchsorted(gap, row, side="right") for row, gap in zip(ranks, below, strict=True)])


def placed(at: np.ndarray, what: np.ndarray, length: int, elsewhere: int) -> np.ndarray:
    """(b, length) int64: `what` (b, n) at the positions `at` (b, n) of each row, `elsewhere` in all others."""
    out = np.full((len(at), length), elsewhere, dtype=np.int64)
    np.put_along_axis(out, at, what, 1)
    return out


@lru_cache(maxsize=8)
def speaks_of(text: bytes, clue: bytes) -> bool:
    """Whether a text holds these words, in capitals or not. Kept, as every batch asks it of the same long text."""
    return clue.lower() in text.lower()


def batch(inputs: np.ndarray, labels: np.ndarray, info: dict[str, np.ndarray]) -> Batch:
    """A Batch from int64 arrays."""
    return Batch(torch.from_numpy(inputs), torch.from_numpy(labels), info)


def check_range(seed: int, start: int, count: int) -> None:
    """Raise ConfigError unless seed, start and count can address examples."""
    require(seed >= 0, "seed", seed, "must be 0 or more")
    require(start >= 0, "start", start, "must be 0 or more")
    require(count > 0, "count", count, "must be positive")


def accuracy(predictions: Tensor, labels: Tensor) -> Tensor:
    """Share of the scored positions that are right, an example. predictions, labels (b, t) int64 -> (b,) float64."""
    scored = labels != IGNORE
    right = (predictions == labels) & scored
    return right.sum(1).double() / scored.sum(1)


def exact(predictions: Tensor, labels: Tensor) -> Tensor:
    """Whether all scored positions are right, an example. predictions, labels (b, t) int64 -> (b,) bool."""
    return ((predictions == labels) | (labels == IGNORE)).all(1)
