"""Passkey retrieval in bytes: a number hidden in filler text, asked for at the end.

    HEADER, haystack up to the depth, needle, the rest of the haystack, question, the digits

The needle and the question are worded as in Landmark Attention (arXiv:2305.16300), the filler sentences too, repeated; digits
with leading zeros and a controlled depth as in Stuffed Mamba (arXiv:2410.07145). Scored by teacher-forced exact match: labels
stand only where a digit of the answer is next. Repeated filler needs almost no memory: this measures how long a state keeps
one thing, not how much it holds. With `haystack: text` the caller gives a real document instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from blocks.errors import ConfigError, one_of, require
from zoo.tasks.shared.base import IGNORE, Batch, batch, check_range, integers, speaks_of, uniforms
from zoo.tasks.shared.haystack import HaystackText

SUMMARY = "a number hidden in filler text at a chosen depth and length, asked for at the end (bytes)"
HAYSTACKS = ("filler", "text")

CLUE = b"pass key"
HEADER = b"A pass key is hidden in the text below. Find it and remember it.\n"
FILLER = b"The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
NEEDLE = "\nThe pass key is {0}. Remember it. {0} is the pass key.\n"
QUESTION = "\nWhat is the pass key? The pass key is {0}"


@dataclass(frozen=True, kw_only=True)
class Config(HaystackText):
    """Sizes of one condition."""

    clue: ClassVar[bytes] = CLUE
    length: int = 1024  # bytes that the model reads, the answer's last digit excluded
    digits: int = 5  # of the number, leading zeros included
    depth: float | None = None  # share of the haystack before the needle, 0 to 1; null: drawn for each example
    haystack: str = "filler"  # filler (the repeated sentences) | text (a document given to generate)

    @property
    def vocab_size(self) -> int:
        """Bytes."""
        return 256

    @property
    def room(self) -> int:
        """Bytes of haystack."""
        around = len(HEADER) + len(_needle("0" * self.digits)) + len(_question("0" * self.digits))
        return self.length + 1 - around

    def __post_init__(self) -> None:
        require(1 <= self.digits <= 15, "digits", self.digits, "must be 1 to 15")
        require(self.depth is None or 0 <= self.depth <= 1, "depth", self.depth, "is a share of the haystack, 0 to 1")
        one_of("haystack", self.haystack, HAYSTACKS)
        least = self.length - self.room
        require(self.room >= 0, "length", self.length, f"is too short for the needle and the question: {least} bytes at least")


def chance(config: Config) -> float:
    """A guess among all numbers."""
    return 10.0**-config.digits


def generate(config: Config, seed: int, start: int, count: int, text: bytes | None = None) -> Batch:
    """Examples start .. start+count-1. `text`: the document that `haystack: text` cuts its haystacks from.

    info (b,): length, depth (the share really before the needle), key (the number), distance (bytes from the needle's first
    digit to the first scored position).
    """
    check_range(seed, start, count)
    draws = uniforms(("passkey", seed, config.length, config.digits), start, count, 3)
    numbers = integers(draws[:, 0], 10**config.digits)
    depths = draws[:, 1] if config.depth is None else np.full(count, config.depth)
    before = np.floor(depths * config.room + 0.5).astype(np.int64)
    rows = [_row(config, *row) for row in zip(numbers, before, _haystacks(config, draws[:, 2], text), strict=True)]
    whole = np.stack([np.frombuffer(row, dtype=np.uint8) for row in rows]).astype(np.int64)
    labels = whole[:, 1:].copy()
    labels[:, : -config.digits] = IGNORE
    first = len(HEADER) + before + NEEDLE.index("{")
    info = {"length": np.full(count, config.length), "depth": before / max(config.room, 1), "key": numbers}
    return batch(whole[:, :-1].copy(), labels, info | {"distance": config.length - config.digits - first})


def _needle(number: str) -> bytes:
    return NEEDLE.format(number).encode()


def _question(number: str) -> bytes:
    return QUESTION.format(number).encode()


def _row(config: Config, number: int, before: int, haystack: bytes) -> bytes:
    digits = f"{number:0{config.digits}d}"
    return HEADER + haystack[:before] + _needle(digits) + haystack[before:] + _question(digits)


def _haystacks(config: Config, u: np.ndarray, text: bytes | None) -> list[bytes]:
    room = config.room
    if config.haystack == "filler":
        require(text is None, "haystack", "filler", "uses no document", "haystack: text")
        return [(FILLER * (room // len(FILLER) + 1))[:room]] * len(u)
    if text is None:
        raise ConfigError("haystack", "text", "needs a document: generate(..., text=bytes)", "haystack: filler")
    require(
        len(text) >= room, "length", config.length, f"needs {room} bytes of haystack, the document has {len(text)}", "a longer document"
    )
    require(not speaks_of(text, CLUE), "haystack", "text", "the document speaks of a pass key itself", "another document")
    return [text[offset : offset + room] for offset in integers(u, len(text) - room + 1)]
