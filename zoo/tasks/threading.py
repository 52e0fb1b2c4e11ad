"""Needle threading (arXiv:2411.05000): key-value pairs strewn over a long context, values that are keys of other pairs; follow them.

A thread of n steps is n pairs: k0 -> k1, k1 -> k2, ..., kn-1 -> end. At the end of the context a thread's first key is given and
its end asked for; with several threads asked, one after the other.

    direction: forward    each pair stands before the next one of its thread: one pass could carry the answer along
    direction: backward   each pair stands after the next one of its thread: a pass forward meets the end first
    direction: random

    form: tokens   a pair is 0, key, value; a question is 1, first key, end; for ids see zoo.tasks.shared.haystack
    form: text     "1f3a": "77ab",      (hexadecimal names; the paper's are UUIDs)

`haystack: pairs`, the paper's, is full of other pairs whose values are keys of none. All names of an example differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from blocks.errors import one_of, require
from zoo.tasks.shared import haystack
from zoo.tasks.shared.base import Batch, check_range
from zoo.tasks.shared.haystack import NAMES, codes, joined, sample

SUMMARY = "needle threading: key-value pairs strewn over the context; follow values that are keys to the end (tokens or bytes)"
HAYSTACKS = ("pairs", "noise", "random", "text")
DIRECTIONS = ("forward", "backward", "random")

CLUE = b'": "'
HEADER = b"Below are keys with their values. A value may be a key itself.\n"
PAIR = {"tokens": (b"\0", b"", b""), "text": (b'\n"', b'": "', b'",\n')}  # before the key, between, after the value
QUESTION = {
    "tokens": (b"\1", b"", b""),
    "text": (b'\nStart at the key "', b'" and follow the values until a value is no key. That value is "', b'".\n'),
}
HEX = np.array(list(b"0123456789abcdef"), dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Config(haystack.HaystackText):
    """Sizes of one condition."""

    clue: ClassVar[bytes] = CLUE
    vocab_size: int = 256  # text: 256
    length: int = 512  # tokens or bytes that the model reads, the last answer's last one excluded
    form: str = "tokens"  # tokens | text (bytes)
    haystack: str = "pairs"  # pairs (others) | noise (the same words again and again) | random | text (a document given to generate)
    threads: int = 1  # in the context
    asked: int = 1  # threads asked for
    steps: int = 4  # pairs of a thread
    direction: str = "forward"  # forward | backward | random: how the pairs of a thread follow one another
    size: int = 4  # ids or hexadecimal digits of a name

    def __post_init__(self) -> None:
        haystack.check(self, HAYSTACKS, 2)
        one_of("direction", self.direction, DIRECTIONS)
        require(self.steps >= 1, "steps", self.steps, "must be positive")
        require(self.asked >= 1, "asked", self.asked, "must be positive")
        require(self.threads >= self.asked, "threads", self.threads, f"{self.asked} are asked for")
        haystack.check_names("size", self.size, self.base, 1)
        n = self.threads * self.steps
        haystack.check_room(self, n, self.slots, self.length + 1 - self.room + n * self.width)
        haystack.check_names("size", self.size, self.base, self.names)

    @property
    def base(self) -> int:
        """What each part of a name is drawn from."""
        return len(HEX) if self.form == "text" else self.vocab_size - NAMES

    @property
    def width(self) -> int:
        """Tokens or bytes of a pair."""
        return sum(map(len, PAIR[self.form])) + 2 * self.size

    @property
    def question(self) -> int:
        """Tokens or bytes of a question with its answer."""
        return sum(map(len, QUESTION[self.form])) + 2 * self.size

    @property
    def room(self) -> int:
        """Tokens or bytes of the haystack, pairs included."""
        header, end = (len(HEADER), len(QUESTION["text"][2])) if self.form == "text" else (0, 0)
        return self.length + 1 + end - header - self.asked * self.question

    @property
    def slots(self) -> int:
        """Places for a pair."""
        return self.room // self.width

    @property
    def pairs(self) -> int:
        """Pairs in the haystack, those of the threads included."""
        return self.slots if self.haystack == "pairs" else self.threads * self.steps

    @property
    def names(self) -> int:
        """Different names of an example."""
        return 2 * self.pairs - self.threads * (self.steps - 1)


def chance(config: Config) -> float:
    """A guess among the ends of all threads; of a single one: among all names.

    With one step and a haystack of pairs every pair is a thread.
    """
    ends = config.pairs if config.steps == 1 else config.threads
    return 1 / ends if ends > 1 else float(config.base) ** -config.size


def generate(config: Config, seed: int, start: int, count: int, text: bytes | None = None) -> Batch:
    """Examples start .. start+count-1. `text`: the document that `haystack: text` cuts its haystacks from.

    info: length, pairs (b,); of each scored position (b, t): distance (tokens or bytes back to the same place of the thread's
    last pair), span (from its first pair in the context to its last) and query (from 1 on), 0 where nothing is asked.
    """
    check_range(seed, start, count)
    c, n, q, size = config.threads, config.steps, config.asked, config.size
    stream = ("threading", seed, config.form, config.vocab_size, config.length, config.haystack, c, n, q, config.direction, size)
    names = codes((*stream, "names"), start, count, config.names, config.base, size)
    names = HEX[names] if config.form == "text" else NAMES + names
    threads, others = names[:, : c * (n + 1)].reshape(count, c, n + 1, size), names[:, c * (n + 1) :]
    half = others.shape[1] // 2
    keys = np.concatenate([threads[:, :, :-1].reshape(count, c * n, size), others[:, :half]], axis=1)
    values = np.concatenate([threads[:, :, 1:].reshape(count, c * n, size), others[:, half:]], axis=1)
    slot = _slots(config, sample((*stream, "slots"), start, count, config.pairs, config.slots))
    before, between, after = PAIR[config.form]
    hay = haystack.filler(config, stream, start, count, config.room - config.pairs * config.width, text, CLUE)
    body = haystack.strew(joined(before, keys, between, values, after), slot, hay)

    before, between, end = QUESTION[config.form]
    asked = joined(before, threads[:, :q, 0], between, threads[:, :q, -1], end).reshape(count, -1)
    header = HEADER if config.form == "text" else b""
    whole = joined(header, body.ids, asked)[:, : config.length + 1]
    first = len(header) + config.room + len(before) + size + len(between)
    at = np.add.outer(first + config.question * np.arange(q), np.arange(size)).reshape(-1)
    starts = body.start[:, : c * n].reshape(count, c, n)[:, :q]
    value = len(header) + starts[:, :, -1:] + config.width - len(after) - size + np.arange(size)
    span = np.repeat(starts.max(2) - starts.min(2), size, 1)
    info = {"pairs": np.full(count, config.pairs), "span": span, "query": np.tile(np.repeat(1 + np.arange(q), size), (count, 1))}
    return haystack.scored(whole, np.tile(at, (count, 1)), value.reshape(count, -1), info)


def _slots(config: Config, slot: np.ndarray) -> np.ndarray:
    """(b, pairs): the slot of each pair, thread after thread in their direction, then the others. slot (b, pairs): as drawn."""
    n = config.threads * config.steps
    if config.direction != "random":
        threads = np.sort(slot[:, :n].reshape(len(slot), config.threads, config.steps), axis=2)
        slot[:, :n] = (threads if config.direction == "forward" else threads[:, :, ::-1]).reshape(len(slot), n)
    return slot
