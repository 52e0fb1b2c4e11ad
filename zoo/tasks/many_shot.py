"""Many-shot classification with a large label space (LongICLBench, arXiv:2404.02060): examples with their labels, then one without.

First every class once, then classes drawn independently; the last example's label is asked for, or with `ask: every` that of each
after the first round, so that no label is asked that was never shown.

    form: tokens   a class is a prototype of `size` ids, an example a copy with some ids replaced: prototype, 1, label. Labels are
                   drawn for each row. Ids: 0 padding in front, 1 the arrow, half of the rest for patterns, half for labels
    form: text     documents given to generate(..., documents=...), cut to `size` bytes:

                       the text
                       Label: 417

                   `labels: drawn` are numbers drawn for each row, known from the context alone; `labels: given` the names of the
                   classes. Whether a text tells its class is up to the documents. The last text is none of those before.

In tokens the answer is certain: prototypes are points of lines modulo a prime (a Reed-Solomon code of two coefficients), any two of
which agree in one place at most, and noise is kept so low that the nearest example has the right label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from blocks.errors import ConfigError, one_of, require
from zoo.tasks.shared.base import IGNORE, Batch, ReadsText, TextNeeds, batch, check_range, integers, uniforms
from zoo.tasks.shared.haystack import FORMS, sample

SUMMARY = "many-shot classification: many examples of many classes, then one to label (tokens, or documents that are given)"
ASKS = ("last", "every")
LABELS = ("drawn", "given")
ARROW, PATTERNS = 1, 2  # tokens: the mark before a label, first id of a pattern
BEFORE, AFTER, NUMBERS = b"\nLabel: ", b"\n\n", 1000  # text: around a label; drawn labels are 000 .. 999

Documents = Mapping[str, Sequence[bytes]]  # of each class, by its name


@dataclass(frozen=True, kw_only=True)
class Config(ReadsText):
    """Sizes of one condition."""

    vocab_size: int = 256  # text: 256
    length: int = 512  # tokens or bytes that the model reads, the answer's last one excluded
    form: str = "tokens"  # tokens | text (bytes)
    classes: int = 8  # of an example
    size: int = 8  # ids of a pattern; text: bytes of a document at most
    noise: float = 0.125  # tokens: share of a pattern's ids replaced in each example, below a quarter; text: 0
    ask: str = "last"  # last (example) | every (one after the first round)
    labels: str = "drawn"  # drawn (for each row) | given (text: the names of the classes)

    def __post_init__(self) -> None:
        one_of("form", self.form, FORMS)
        one_of("ask", self.ask, ASKS)
        one_of("labels", self.labels, LABELS)
        require(self.classes >= 2, "classes", self.classes, "must be 2 or more")
        require(self.size >= 1, "size", self.size, "must be positive")
        self._check_text() if self.form == "text" else self._check_tokens()
        needed = (self.classes + 1) * self.shot - self._unread
        rule = f"{self.classes} classes once and a question need {needed}"
        require(self.length >= needed, "length", self.length, rule, "or fewer classes")

    def _check_text(self) -> None:
        require(self.vocab_size == 256, "vocab_size", self.vocab_size, "must be 256 with form text: bytes", "form: tokens")
        require(self.noise == 0, "noise", self.noise, "must be 0 with form text: documents are noisy enough")
        require(self.classes <= NUMBERS, "classes", self.classes, f"there are only {NUMBERS} labels")

    def _check_tokens(self) -> None:
        require(self.labels == "drawn", "labels", self.labels, "must be drawn with form tokens", "form: text")
        least = PATTERNS + 2 * max(self.classes, 2)
        require(self.vocab_size >= least, "vocab_size", self.vocab_size, f"must be {least} or more: as many labels as classes, patterns")
        require(self.size <= self.prime, "size", self.size, f"must be {self.prime} at most: a prime number of ids makes the patterns")
        require(self.classes <= self.prime**2, "classes", self.classes, f"{self.prime} ids make {self.prime**2} patterns")
        require(0 <= self.noise < 0.25, "noise", self.noise, "is the share of a pattern replaced, 0 or more and below a quarter")
        rule = f"{self.replaced} of {self.size} ids replaced could make another class look nearer: 4 times as many must be below size - 1"
        require(4 * self.replaced < self.size - 1, "noise", self.noise, rule, "a larger size")

    def text_needs(self) -> TextNeeds | None:
        return TextNeeds(self.classes, 1 + 2 * self.size) if self.form == "text" else None

    def text_arguments(self, texts: Sequence[bytes]) -> dict[str, Any]:
        """A class is a document, named by its number; its examples are the document's pieces of `size` bytes, two or more."""
        require(self.labels == "drawn", "labels", self.labels, "must be drawn where the classes are documents", "labels: drawn")
        pieces = {
            f"{i:06d}": [text[a : a + self.size] for a in range(0, len(text) - self.size + 1, self.size)] for i, text in enumerate(texts)
        }
        return {"documents": {name: cut for name, cut in pieces.items() if len(cut) > 1}}

    @property
    def prime(self) -> int:
        """Ids that patterns are made of."""
        ids = (self.vocab_size - PATTERNS) // 2
        return next(p for p in range(ids, 1, -1) if all(p % d for d in range(2, int(p**0.5) + 1)))

    @property
    def replaced(self) -> int:
        """Ids of a pattern that are noise in each example."""
        return int(self.noise * self.size + 0.5)

    @property
    def shot(self) -> int:
        """Tokens of an example with its label; bytes at most, where labels are drawn."""
        return self.size + 2 if self.form == "tokens" else self.size + len(BEFORE) + 3 + len(AFTER)

    @property
    def _unread(self) -> int:
        return 1 if self.form == "tokens" else 1 + len(AFTER)

    @property
    def shots(self) -> int:
        """Examples of a row, the one asked last included; with given labels fewer may fit."""
        return (self.length + self._unread) // self.shot


def chance(config: Config) -> float:
    """A guess among the classes of the row."""
    return 1 / config.classes


def generate(config: Config, seed: int, start: int, count: int, documents: Documents | None = None) -> Batch:
    """Examples start .. start+count-1. `documents`: form text's, at least two of each class.

    info: length, classes, shots (b,); of each scored position (b, t): shown (examples of the class before it) and distance (tokens or
    bytes back to the label of the latest of them), 0 where nothing is asked.
    """
    check_range(seed, start, count)
    stream = ("many_shot", seed, config.form, config.vocab_size, config.length, config.classes, config.size, config.noise, config.labels)
    if config.form == "text":
        if documents is None:
            raise ConfigError("form", "text", "needs documents: generate(..., documents={name: [bytes]})", "form: tokens")
        return _text(config, stream, start, count, documents)
    require(documents is None, "form", "tokens", "uses no documents", "form: text")
    which = _classes(config, stream, start, count, config.shots)
    c, n, p = config.classes, which.shape[1], config.prime
    lines = sample((*stream, "lines"), start, count, c, p * p)
    places = (lines[:, :, None] // p + lines[:, :, None] % p * np.arange(config.size)) % p
    ids = sample((*stream, "ids"), start, count, p, p)
    first = PATTERNS + (config.vocab_size - PATTERNS) // 2
    labels = first + sample((*stream, "labels"), start, count, c, config.vocab_size - first)
    rows = np.arange(count)[:, None]
    shown = _noisy(config, stream, start, ids[rows[:, :, None], places[rows, which]])
    arrow = np.full((count, n, 1), ARROW)
    body = np.concatenate([shown, arrow, labels[rows, which][:, :, None]], axis=2).reshape(count, -1)
    padding = np.zeros((count, config.length + 1 - body.shape[1]), dtype=np.int64)
    begin = np.tile(padding.shape[1] + config.shot * np.arange(1, n + 1) - 1, (count, 1))
    return _batch(config, np.concatenate([padding, body], axis=1), begin, np.ones_like(begin), which)


def _classes(config: Config, stream: tuple[object, ...], start: int, count: int, shots: int) -> np.ndarray:
    """(b, shots): the class of each example."""
    u = uniforms((*stream, "classes"), start, count, shots)
    first = np.argsort(u[:, : config.classes], axis=1, kind="stable")
    return np.concatenate([first, integers(u[:, config.classes :], config.classes)], axis=1)


def _noisy(config: Config, stream: tuple[object, ...], start: int, ids: np.ndarray) -> np.ndarray:
    """(b, n, size) ids of patterns, some replaced."""
    if config.replaced:
        u = uniforms((*stream, "noise"), start, len(ids), 2 * ids[0].size).reshape(*ids.shape, 2)
        where = np.argsort(u[..., 0], axis=2, kind="stable")[..., : config.replaced]
        np.put_along_axis(ids, where, integers(u[..., : config.replaced, 1], config.prime), 2)
    return PATTERNS + ids


def _text(config: Config, stream: tuple[object, ...], start: int, count: int, documents: Documents) -> Batch:
    names, shots = sorted(documents), _shots(config, documents)
    which = _classes(config, stream, start, count, shots)
    u = uniforms((*stream, "documents"), start, count, shots)
    chosen = sample((*stream, "names"), start, count, config.classes, len(names))
    numbers = sample((*stream, "labels"), start, count, config.classes, NUMBERS)
    whole = np.full((count, config.length + 1), ord("\n"), dtype=np.int64)
    begin, sizes = np.empty_like(which), np.empty_like(which)
    for row in range(count):
        of_shot = [names[i] for i in chosen[row, which[row]]]
        labels = [name.encode() for name in of_shot] if config.labels == "given" else [b"%03d" % i for i in numbers[row, which[row]]]
        texts = _drawn(of_shot, u[row], documents)
        shown = [text[: config.size] + BEFORE + label + AFTER for text, label in zip(texts, labels, strict=True)]
        body = b"".join(shown)[: -len(AFTER)]
        whole[row, whole.shape[1] - len(body) :] = np.frombuffer(body, dtype=np.uint8)
        sizes[row] = [len(label) for label in labels]
        ends = np.array(list(accumulate(map(len, shown)))) - len(AFTER)
        begin[row] = whole.shape[1] - len(body) + ends - sizes[row]
    return _batch(config, whole, begin, sizes, which)


def _shots(config: Config, documents: Documents) -> int:
    """Examples that fit whatever is drawn. Raises ConfigError where the documents don't do."""
    require(len(documents) >= config.classes, "classes", config.classes, f"the documents are of {len(documents)} only")
    few = [name for name, texts in documents.items() if len(texts) < 2]
    require(not few, "form", "text", f"needs two documents of a class or more: there are fewer of {', '.join(few[:3])}")
    longest = max(len(name.encode()) for name in documents) if config.labels == "given" else 3
    shot = config.shot - 3 + longest
    fit = (config.length + config._unread) // shot
    if fit <= config.classes:
        rule = f"{config.classes} classes once and a question need {(config.classes + 1) * shot - config._unread}"
        raise ConfigError("length", config.length, rule, "or shorter names of classes")
    return fit


def _drawn(names: list[str], u: np.ndarray, documents: Documents) -> list[bytes]:
    """A document of each class in turn; the last one is none of those before."""
    last = int(u[-1] * len(documents[names[-1]]))
    drawn = []
    for name, number in zip(names[:-1], u, strict=False):
        others = len(documents[name]) - (name == names[-1])
        i = int(number * others)
        drawn.append(documents[name][i + (name == names[-1] and i >= last)])
    return [*drawn, documents[names[-1]][last]]


def _batch(config: Config, whole: np.ndarray, begin: np.ndarray, sizes: np.ndarray, which: np.ndarray) -> Batch:
    """The Batch of rows (b, length+1) with labels of `sizes` (b, n) at `begin` (b, n), of the classes `which` (b, n)."""
    count, n = which.shape
    order = np.argsort(which, axis=1, kind="stable")  # the examples of a class stand side by side, in their order
    latest, shown = np.full((count, n), -1), np.zeros((count, n), dtype=np.int64)
    together = np.take_along_axis(which, order, 1)
    np.put_along_axis(latest, order[:, 1:], np.where(together[:, 1:] == together[:, :-1], order[:, :-1], -1), 1)
    heads = np.maximum.accumulate(np.where(np.take_along_axis(latest, order, 1) < 0, np.arange(n), 0), axis=1)
    np.put_along_axis(shown, order, np.arange(n) - heads, 1)
    asked = np.arange(config.classes if config.ask == "every" else n - 1, n)
    distance = begin - np.take_along_axis(begin, np.maximum(latest, 0), 1)
    labels = np.full((count, config.length), IGNORE, dtype=np.int64)
    info = {name: np.full(count, number) for name, number in (("length", config.length), ("classes", config.classes), ("shots", n))}
    info |= {"shown": np.zeros_like(labels), "distance": np.zeros_like(labels)}
    for i in range(int(sizes.max())):
        row, shot = np.nonzero(sizes[:, asked] > i)
        shot = asked[shot]
        at = begin[row, shot] + i
        labels[row, at - 1] = whole[row, at]
        info["shown"][row, at - 1], info["distance"][row, at - 1] = shown[row, shot], distance[row, shot]
    return batch(whole[:, :-1].copy(), labels, info)
