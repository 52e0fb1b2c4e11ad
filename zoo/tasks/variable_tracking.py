"""Variable tracking (RULER, arXiv:2404.06654): chains of assignments strewn over a haystack; which names hold a value.

    VAR ABCD = 12345678      VAR EFGH = VAR ABCD      VAR IJKL = VAR EFGH      a chain of two hops

An assignment stands before those that build on it. One chain is asked for, in one of two exact forms:

    ask: names    a value is given: all names that hold it, the last assigned first. (RULER takes them in any order. Forward, each name
                  shown would give away the next one in a single look-up; backward, the first answer needs the whole chain.)
    ask: value    the last name of a chain is given: its value

    form: tokens   an assignment is 0, name, 2, name or value; a question is 1, value, names or 3, name, value; names are made of the
                   lower half of the ids from 12 on, values of the upper half, see zoo.tasks.shared.haystack
    form: text     as above; values have four digits more than names have letters: all assignments are as long

All names and all values of an example differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from blocks.errors import one_of, require
from zoo.tasks.shared import haystack
from zoo.tasks.shared.base import Batch, check_range
from zoo.tasks.shared.haystack import NAMES, codes, joined, sample

SUMMARY = "RULER's variable tracking: chains of assignments in a haystack; say all names that hold a value (tokens or bytes)"
HAYSTACKS = ("noise", "random", "text")
ASKS = ("names", "value")

CLUE = b"\nVAR "
HEADER = b"Memorize and track the chains of variable assignment hidden in the following text.\n"
ASSIGNMENT = {"tokens": (b"\0", b"\2", b"", b""), "text": (b"\nVAR ", b" = ", b"VAR ", b"\n")}  # before, between, before a name, after
QUESTION = {
    ("tokens", "names"): (b"\1", b"", b""),
    ("tokens", "value"): (b"\3", b"", b""),
    ("text", "names"): (b"\nFind all variables that are assigned the value ", b" in the text above, the last one first. They are: ", b" "),
    ("text", "value"): (b"\nWhat is the value of the variable ", b" in the text above? It is ", b""),
}


@dataclass(frozen=True, kw_only=True)
class Config(haystack.HaystackText):
    """Sizes of one condition."""

    clue: ClassVar[bytes] = CLUE
    vocab_size: int = 256  # text: 256
    length: int = 512  # tokens or bytes that the model reads, the answer's last one excluded
    form: str = "tokens"  # tokens | text (bytes)
    haystack: str = "noise"  # noise (the same words again and again) | random | text (a document given to generate)
    chains: int = 1  # one of them is asked for
    hops: int = 4  # assignments of a name to a name, after that of the value
    ask: str = "names"  # names (that hold a value, the last first) | value (of the last name)
    size: int = 4  # ids or letters of a name

    def __post_init__(self) -> None:
        haystack.check(self, HAYSTACKS, 4)
        one_of("ask", self.ask, ASKS)
        require(self.chains >= 1, "chains", self.chains, "must be positive")
        require(self.hops >= 0, "hops", self.hops, "must be 0 or more")
        haystack.check_names("size", self.size, self.names_base, self.assignments)
        haystack.check_names("size", self.value_size, self.values_base, self.chains)
        least = self.length + 1 - self.room + self.assignments * self.width
        haystack.check_room(self, self.assignments, self.slots, least - 1)

    @property
    def assignments(self) -> int:
        """Units in the haystack."""
        return self.chains * (self.hops + 1)

    @property
    def names_base(self) -> int:
        """What each part of a name is drawn from."""
        return 26 if self.form == "text" else (self.vocab_size - NAMES) // 2

    @property
    def values_base(self) -> int:
        """What each part of a value is drawn from."""
        return 10 if self.form == "text" else self.vocab_size - NAMES - self.names_base

    @property
    def value_size(self) -> int:
        """Ids or digits of a value."""
        return self.size + len(ASSIGNMENT[self.form][2])

    @property
    def width(self) -> int:
        """Tokens or bytes of an assignment."""
        return sum(map(len, ASSIGNMENT[self.form])) + 2 * self.size

    @property
    def room(self) -> int:
        """Tokens or bytes of the haystack, assignments included."""
        before, between, space = QUESTION[self.form, self.ask]
        listed = (self.hops + 1) * (self.size + len(space)) - len(space) if self.ask == "names" else self.value_size
        given = self.value_size if self.ask == "names" else self.size
        header = len(HEADER) if self.form == "text" else 0
        return self.length + 1 - header - len(before) - given - len(between) - listed

    @property
    def slots(self) -> int:
        """Places for an assignment."""
        return self.room // self.width


def chance(config: Config) -> float:
    """One name (guessed among those at the same place of each chain) or value (of each chain); of a single chain: among all."""
    base, size = (config.names_base, config.size) if config.ask == "names" else (config.values_base, config.value_size)
    return 1 / config.chains if config.chains > 1 else float(base) ** -size


def generate(config: Config, seed: int, start: int, count: int, text: bytes | None = None) -> Batch:
    """Examples start .. start+count-1. `text`: the document that `haystack: text` cuts its haystacks from.

    info: length, chains (b,); of each scored position (b, t): distance (tokens or bytes back to the same place of the assignment of
    the name or value) and hops (assignments between the value and the name), 0 where nothing is asked.
    """
    check_range(seed, start, count)
    c, n, size = config.chains, config.hops + 1, config.size
    stream = ("variable_tracking", seed, config.form, config.vocab_size, config.length, config.haystack, c, n, config.ask, size)
    letters = codes((*stream, "names"), start, count, c * n, config.names_base, size).reshape(count, c, n, size)
    digits = codes((*stream, "values"), start, count, c, config.values_base, config.value_size)
    text_form = config.form == "text"
    names, values = (letters + ord("A"), digits + ord("0")) if text_form else (letters + NAMES, digits + NAMES + config.names_base)
    slot = np.sort(sample((*stream, "slots"), start, count, c * n, config.slots).reshape(count, c, n), axis=2)

    before, between, mark, after = ASSIGNMENT[config.form]
    held = np.concatenate([values[:, :, None], joined(mark, names[:, :, :-1])], axis=2)
    units = joined(before, names, between, held, after).reshape(count, c * n, -1)
    hay = haystack.filler(config, stream, start, count, config.room - c * n * config.width, text, CLUE)
    body = haystack.strew(units, slot.reshape(count, -1), hay)
    begin = (len(HEADER) if text_form else 0) + body.start.reshape(count, c, n)[:, 0] + len(before)
    return _asked(config, names[:, 0], values[:, 0], joined(HEADER if text_form else b"", body.ids), begin)


def _asked(config: Config, names: np.ndarray, values: np.ndarray, front: np.ndarray, begin: np.ndarray) -> Batch:
    """The question about the chain of names (b, n, size), after `front` (b, room). begin (b, n): where its assignments have their names."""
    count, n, size = names.shape
    before, between, space = QUESTION[config.form, config.ask]
    if config.ask == "names":
        listed = joined(names[:, ::-1], space).reshape(count, -1)
        whole = joined(front, before, values, between, listed)[:, : config.length + 1]
        first = config.length + 1 - n * (size + len(space)) + len(space)
        at = np.add.outer(first + (size + len(space)) * np.arange(n), np.arange(size)).reshape(-1)
        source = (begin[:, ::-1, None] + np.arange(size)).reshape(count, -1)
        hops = np.repeat(np.arange(n)[::-1], size)
    else:
        whole = joined(front, before, names[:, -1], between, values)
        at = config.length + 1 + np.arange(-config.value_size, 0)
        source = begin[:, :1] + size + len(ASSIGNMENT[config.form][1]) + np.arange(config.value_size)
        hops = np.full(config.value_size, config.hops)
    info = {"chains": np.full(count, config.chains), "hops": np.tile(hops, (count, 1))}
    return haystack.scored(whole, np.tile(at, (count, 1)), source, info)
