"""Common and frequent words (RULER's aggregation tasks, arXiv:2404.06654): a shuffled list of words; say the most frequent ones.

    law: zeta     counts fall as rank^-alpha (RULER's frequent words, without its row of dots of rank 1)
    law: common   the `top` words come `ratio` times as often as the others, each of them `gap` more often than the next (RULER's
                  common words, which are all as frequent there)

The answer is the `top` words, the most frequent first. Ranks 1 to top + 1 differ in their counts, so it is exact; RULER takes any order.

    form: tokens   ids: 0 padding, 1 the question, 2 .. V-1 words
    form: text     coded words of six letters

Every word stands there at least once; what the counts leave of the length is padding in front.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from blocks.errors import ConfigError, one_of, require
from zoo.tasks.shared.base import IGNORE, Batch, batch, check_range, placed, uniforms
from zoo.tasks.shared.haystack import FORMS, joined, sample, written

SUMMARY = "RULER's common and frequent words: say the most frequent words of a list, in order (tokens or bytes)"
LAWS = ("zeta", "common")
PADDING, WORDS = 0, 2  # tokens: padding, first id of a word
LETTERS = 6  # of a word in form text

HEADER = b"Read the following coded text and track the frequency of each coded word.\n"
QUESTION = {"tokens": b"\1", "text": b"\nThe most frequent words of the coded text above, the most frequent one first, are: "}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of one condition."""

    vocab_size: int = 256  # text: 256
    length: int = 512  # tokens or bytes that the model reads, the answer's last one excluded
    form: str = "tokens"  # tokens | text (bytes)
    law: str = "zeta"  # of the counts: zeta | common
    words: int = 24  # different words
    top: int = 3  # words asked for
    alpha: float | None = None  # law zeta: exponent; null: 2
    ratio: float | None = None  # law common: count of the last common word in counts of the others; null: 10
    gap: float | None = None  # law common: by how much each common word is more frequent than the next, in those of the last; null: 0.25

    def __post_init__(self) -> None:
        one_of("form", self.form, FORMS)
        one_of("law", self.law, LAWS)
        if self.form == "text":
            require(self.vocab_size == 256, "vocab_size", self.vocab_size, "must be 256 with form text: bytes", "form: tokens")
        for name, law in (("alpha", "zeta"), ("ratio", "common"), ("gap", "common")):
            value = getattr(self, name)
            require(value is None or self.law == law, name, value, f"belongs to law {law}", f"law: {law}")
            require(value is None or value > 0, name, value, "must be positive")
        require(self.top >= 1, "top", self.top, "must be positive")
        require(self.words > self.top, "words", self.words, f"must be more than the {self.top} asked for")
        require(self.words <= self.known, "words", self.words, f"there are only {self.known}", "a larger vocab_size")
        needed = self.length - (self.slots - self.words) * self.width
        require(self.slots >= self.words, "length", self.length, f"{self.words} words and the answer need {needed}", "or fewer words")
        self._check_counts()

    def _check_counts(self) -> None:
        first = self.counts[: self.top + 1].tolist()
        if any(a <= b for a, b in pairwise(first)):
            rule = f"is too short to tell the {self.top} words asked for by their counts: {first}"
            raise ConfigError("length", self.length, rule, "a larger one, or fewer words")

    @property
    def known(self) -> int:
        """Words that an example draws its own from."""
        return 26**LETTERS if self.form == "text" else self.vocab_size - WORDS

    @property
    def width(self) -> int:
        """Tokens or bytes of a word, the space after it included."""
        return LETTERS + 1 if self.form == "text" else 1

    @property
    def slots(self) -> int:
        """Places for a word before the question."""
        header = len(HEADER) if self.form == "text" else 0
        return (self.length + 1 - header - len(QUESTION[self.form]) - self.top * self.width + (self.form == "text")) // self.width

    @property
    def counts(self) -> np.ndarray:
        """(words,) int64: how often the word of each rank stands there."""
        ranks = np.arange(self.words)
        if self.law == "zeta":
            weights = (1.0 + ranks) ** -(self.alpha or 2.0)
        else:
            common = (self.ratio or 10.0) * (1 + (self.gap or 0.25) * (self.top - 1 - ranks))
            weights = np.where(ranks < self.top, common, 1.0)
        return 1 + np.floor(weights / weights.sum() * (self.slots - self.words)).astype(np.int64)


def chance(config: Config) -> float:
    """One word, guessed among those of the list."""
    return 1 / config.words


def generate(config: Config, seed: int, start: int, count: int) -> Batch:
    """Examples start .. start+count-1.

    info: length, words (b,); of each scored position (b, t): rank of the answer (from 1 on), count (how often it stands there), margin
    (how much more often than the next rank), 0 where nothing is asked.
    """
    check_range(seed, start, count)
    stream = ("word_extraction", seed, config.form, config.vocab_size, config.length, config.top, config.counts.tolist())
    numbers = sample((*stream, "words"), start, count, config.words, config.known)
    text = config.form == "text"
    words = joined(written(numbers, 26, LETTERS) + ord("a"), b" ") if text else WORDS + numbers[..., None]
    ranks = np.repeat(np.arange(config.words), config.counts)
    order = np.argsort(uniforms((*stream, "order"), start, count, len(ranks)), axis=1, kind="stable")
    body = np.take_along_axis(words, ranks[order][:, :, None], 1).reshape(count, -1)
    answer = words[:, : config.top].reshape(count, -1)[:, : config.top * config.width - text]

    end = joined(HEADER if text else b"", body, QUESTION[config.form], answer)
    front = np.full((count, config.length + 1 - end.shape[1]), ord("\n") if text else PADDING)
    whole = np.concatenate([front, end], axis=1)
    first = config.length + 1 - answer.shape[1]
    at = first + np.add.outer(config.width * np.arange(config.top), np.arange(config.width - text)).reshape(-1)
    return _batch(config, whole, np.tile(at, (count, 1)))


def _batch(config: Config, whole: np.ndarray, at: np.ndarray) -> Batch:
    counts, ranks = config.counts, np.arange(config.top)
    info = {name: np.full(len(whole), number) for name, number in (("length", config.length), ("words", config.words))}
    for name, per_rank in (("rank", ranks + 1), ("count", counts[ranks]), ("margin", counts[ranks] - counts[ranks + 1])):
        per_position = np.repeat(per_rank, at.shape[1] // config.top)
        info[name] = placed(at - 1, np.tile(per_position, (len(whole), 1)), config.length, 0)
    labels = placed(at - 1, np.take_along_axis(whole, at, 1), config.length, IGNORE)
    return batch(whole[:, :-1].copy(), labels, info)
