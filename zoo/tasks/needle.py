"""Needles in a haystack (RULER's NIAH family, arXiv:2404.06654): keys with values hidden at random places, some keys asked for at the end.

    form: tokens   a needle is 0, key, value; a question is 1, key, and all values of the key; for ids see zoo.tasks.shared.haystack
    form: text     One of the special magic numbers for brave-otter is: 6123.

Keys differ; values may be the same. A key with several values is answered with all of them in the order in which they stood
(RULER takes any order; one order makes the answer exact and teacher-forceable). With several questions each is answered before the next
(RULER asks for a list). `haystack: needles` has nothing but needles, as many keys as fit. Keys are made of the lower half of the ids
from 12 on, values of the upper half or of digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from blocks.errors import require
from zoo.tasks.shared import haystack
from zoo.tasks.shared.base import Batch, check_range, integers, uniforms
from zoo.tasks.shared.haystack import FIRST, NAMES, WORDS, codes, joined, sample

SUMMARY = "RULER's needles in a haystack: single, multi-key, multi-value, multi-query (tokens or bytes)"
HAYSTACKS = ("noise", "random", "needles", "text")

# RULER's tasks as changes of Config; 2 and 3 differ in what values are (digits, UUIDs): here in value_size
RULER: dict[str, dict[str, object]] = {
    "single_1": {"haystack": "noise"},
    "single_2": {"haystack": "random"},  # RULER's haystack is essays: haystack text with a document
    "single_3": {"haystack": "random", "value_size": 8},
    "multikey_1": {"haystack": "random", "keys": 4},
    "multikey_2": {"haystack": "needles"},
    "multikey_3": {"haystack": "needles", "value_size": 8},
    "multivalue": {"haystack": "random", "values": 4},
    "multiquery": {"haystack": "random", "keys": 4, "queries": 4},
}
CLUE = b"magic number"
HEADER = b"Some special magic numbers are hidden within the following text. Memorize them. I will quiz you about the numbers afterwards.\n"
ABOUT = (b"\nWhat are all the special magic numbers for ", b" mentioned in the provided text? They are ", b", ")


@dataclass(frozen=True, kw_only=True)
class Config(haystack.HaystackText):
    """Sizes of one condition."""

    clue: ClassVar[bytes] = CLUE
    vocab_size: int = 256  # text: 256
    length: int = 512  # tokens or bytes that the model reads, the last answer's last one excluded
    form: str = "tokens"  # tokens | text (bytes)
    haystack: str = "noise"  # noise (the same words again and again) | random | needles (other keys) | text (a document given to generate)
    keys: int | None = None  # different keys hidden; null: as many as are asked for; haystack needles: as many as fit
    values: int = 1  # of a key, a needle each
    queries: int = 1  # keys asked for
    depth: float | None = None  # share of the slots before a needle of the key asked first, 0 to 1; null: drawn
    key_size: int = 2  # ids of a key; text: two words
    value_size: int = 4  # ids or digits of a value

    def __post_init__(self) -> None:
        haystack.check(self, HAYSTACKS, 4)
        require(self.values >= 1, "values", self.values, "must be positive")
        require(self.queries >= 1, "queries", self.queries, "must be positive")
        require(self.depth is None or 0 <= self.depth <= 1, "depth", self.depth, "is a share of the haystack, 0 to 1")
        if self.form == "text":
            require(self.key_size == 2, "key_size", self.key_size, "must be 2 with form text: two words")
        require(self.value_size >= 1, "value_size", self.value_size, "must be positive")
        if self.keys is not None:
            require(self.haystack != "needles", "keys", self.keys, "are as many as fit with haystack needles", "keys: null")
            require(self.keys >= self.queries, "keys", self.keys, f"{self.queries} are asked for")
        least = self.values * (self.keys or self.queries)
        haystack.check_room(self, least, self.slots, self.length + 1 - self.room + least * self.width - 1)
        haystack.check_names("key_size", self.key_size, self.keys_base, self.hidden)

    @property
    def keys_base(self) -> int:
        """What each part of a key is drawn from."""
        return len(FIRST) if self.form == "text" else (self.vocab_size - NAMES) // 2

    @property
    def values_base(self) -> int:
        """What each part of a value is drawn from."""
        return 10 if self.form == "text" else self.vocab_size - NAMES - self.keys_base

    @property
    def width(self) -> int:
        """Tokens or bytes of a needle."""
        return sum(map(len, _script(self).needle)) + self._key + self.value_size

    @property
    def question(self) -> int:
        """Tokens or bytes of a question with its answer."""
        before, between, comma = _script(self).question
        return len(before) + self._key + len(between) + self.values * (self.value_size + len(comma)) - len(comma)

    @property
    def room(self) -> int:
        """Tokens or bytes of the haystack, needles included."""
        return self.length + 1 - len(_script(self).header) - self.queries * self.question

    @property
    def slots(self) -> int:
        """Places for a needle."""
        return self.room // self.width

    @property
    def hidden(self) -> int:
        """Different keys in the haystack."""
        return self.slots // self.values if self.haystack == "needles" else self.keys or self.queries

    @property
    def _key(self) -> int:
        return 11 if self.form == "text" else self.key_size


class Script(NamedTuple):
    """The constant parts of header, needle (before the key, between, after the value) and question (before, between, comma)."""

    header: bytes
    needle: tuple[bytes, bytes, bytes]
    question: tuple[bytes, bytes, bytes]


def _script(config: Config) -> Script:
    if config.form == "tokens":
        return Script(b"", (b"\0", b"", b""), (b"\1", b"", b""))
    return Script(HEADER, (b"\nOne of the special magic numbers for ", b" is: ", b".\n"), ABOUT)


def chance(config: Config) -> float:
    """One value, guessed among those of all keys in the haystack; of a single key: among all values."""
    same = float(config.values_base) ** -config.value_size
    return same if config.hidden == 1 else 1 / config.hidden + (1 - 1 / config.hidden) * same


def generate(config: Config, seed: int, start: int, count: int, text: bytes | None = None) -> Batch:
    """Examples start .. start+count-1. `text`: the document that `haystack: text` cuts its haystacks from.

    info: length, keys (b,); of each scored position (b, t): distance (tokens or bytes back to the same place of the needle), depth
    (share of the slots before the needle), query (from 1 on), 0 where nothing is asked.
    """
    check_range(seed, start, count)
    k, m, q, size = config.hidden, config.values, config.queries, config.value_size
    stream = ("needle", seed, config.form, config.vocab_size, config.length, config.haystack, k, m, q, config.key_size, size)
    keys = _keys(config, codes((*stream, "keys"), start, count, k, config.keys_base, config.key_size))
    digits = integers(uniforms((*stream, "values"), start, count, k * m * size), config.values_base).reshape(count, k, m, size)
    values = digits + (ord("0") if config.form == "text" else NAMES + config.keys_base)
    slot = _slots(config, sample((*stream, "slots"), start, count, k * m, config.slots))

    script = _script(config)
    before, between, after = script.needle
    units = joined(before, np.repeat(keys[:, :, None], m, 2), between, values, after).reshape(count, k * m, -1)
    free = config.room - k * m * config.width
    hay = haystack.filler(config, stream, start, count, free, text, CLUE)
    body = haystack.strew(units, slot.reshape(count, -1), hay)

    before, between, comma = script.question
    listed = joined(values[:, :q], comma).reshape(count, q, -1)[..., : m * (size + len(comma)) - len(comma)]
    asked = joined(before, keys[:, :q], between, listed).reshape(count, -1)
    whole = joined(script.header, body.ids, asked)
    first = whole.shape[1] - asked.shape[1] + len(before) + keys.shape[2] + len(between)
    at = first + np.add.outer(config.question * np.arange(q), np.add.outer((size + len(comma)) * np.arange(m), np.arange(size)))
    shown = len(script.header) + body.start.reshape(count, k, m)[:, :q] + config.width - len(after) - size
    source = (shown[..., None] + np.arange(size)).reshape(count, -1)
    depth = np.repeat(slot[:, :q].reshape(count, -1) / max(config.slots - 1, 1), size, 1)
    info = {"keys": np.full(count, k), "depth": depth, "query": np.tile(np.repeat(1 + np.arange(q), m * size), (count, 1))}
    return haystack.scored(whole, np.tile(at.reshape(-1), (count, 1)), source, info)


def _keys(config: Config, parts: np.ndarray) -> np.ndarray:
    """(b, k, w): keys in ids, or in bytes as two words."""
    if config.form == "tokens":
        return NAMES + parts
    return joined(WORDS[parts[..., 0], :5], b"-", WORDS[len(FIRST) + parts[..., 1], :5])


def _slots(config: Config, slot: np.ndarray) -> np.ndarray:
    """(b, k, m): the slot of each needle, from slots drawn (b, k * m): one at the depth that is wanted, those of a key rising."""
    if config.depth is not None:
        wanted = int(config.depth * (config.slots - 1) + 0.5)
        slot = np.where(slot == wanted, slot[:, :1], slot)
        slot[:, 0] = wanted
    return np.sort(slot.reshape(len(slot), config.hidden, config.values), axis=2)
