"""Phone-book look-up: a list of names and numbers, a few entries again as examples, then a name; say its number.

Layout (Repeat After Me, arXiv:2402.01032): one entry a line, a blank line, `shots` entries of the book again, a blank line, the
name asked for, which is none of those. Labels stand only where a digit is next (teacher-forced). All names differ, in either part two
names may agree. A state of fixed size must keep the whole book, as any name may be asked for.

    form: text     bytes, `James Miller: 6123456789`. First names have five letters, last names six: an entry is always as long.
    form: tokens   ids: 0 the line's end, 1 the colon, 2 .. 11 the digits, 12 .. V-1 names; a name is two of these ids

What the entries leave of `length` is line ends in front. With `question: first` the name stands before the book as well, on a line of its
own between blank ones (the reversed phone book of arXiv:2406.07887): what must be kept is known from the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from blocks.errors import ConfigError, one_of, require
from zoo.tasks.shared.base import IGNORE, Batch, batch, check_range, distinct, integers, subset, uniforms

SUMMARY = "phone book: names and numbers, then one name; say its number (bytes or tokens); or the name first"
FORMS = ("text", "tokens")
QUESTIONS = ("last", "first")
NAMES = 12  # first id of a name in form tokens: after the line's end, the colon and ten digits

FIRST_NAMES = """Aaron Adele Agnes Aidan Alice Amber Angel Anita April Betty Billy Blake Bobby Brian Bruce Bryan Caleb Carol Casey Chloe
Clara Cyril Daisy David Debra Diana Donna Doris Dylan Edgar Edith Elena Ellen Emily Ethan Faith Felix Fiona Frank Floyd Glenn Grace
Harry Hazel Heidi Helen Henry Irene Jacob James Janet Jason Jenny Jerry Jesse Joyce Julia Karen Keith Kelly Kevin Laura"""
LAST_NAMES = """Abbott Archer Atkins Austin Bailey Barber Barker Barnes Barton Becker Bishop Bowman Bryson Brewer Briggs Brooks Bryant
Burton Butler Carlin Carson Carter Casper Castle Chavez Clarke Conley Conner Conrad Cooper Cortez Dalton Daniel Dawson Deacon
Dennis Dillon Dotson Dorsey Dudley Duncan Durham Fields Fisher Flores Foster Fowler French Fuller Garner George Gibson
Glover Gordon Graham Greene Grimes Harley Harper Harris Hayden Hebert Hector Henson Hinton Holmes Hoover Horton Howard
Howell Hudson Hughes Hunter Jensen Joseph Keller Larson Little Lucero Martin Massey Melton Mendez Miller Monroe Morgan"""
FIRST, LAST = FIRST_NAMES.split(), LAST_NAMES.split()


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of one condition."""

    vocab_size: int = 256  # text: 256; tokens: line's end, colon, digits and at least four names
    length: int = 1024  # bytes or tokens that the model reads, the answer's last digit excluded
    form: str = "text"  # text (bytes) | tokens
    entries: int | None = None  # of the book; null: as many as fit
    digits: int = 10  # of a number
    shots: int = 2  # entries shown again as examples
    question: str = "last"  # last | first (the name stands before the book, too)

    def __post_init__(self) -> None:
        one_of("form", self.form, FORMS)
        one_of("question", self.question, QUESTIONS)
        if self.form == "text":
            require(self.vocab_size == 256, "vocab_size", self.vocab_size, "must be 256 with form text: bytes", "form: tokens")
        least = NAMES + 4
        require(self.vocab_size >= least, "vocab_size", self.vocab_size, f"must be {least} or more: line's end, colon, digits, names")
        require(1 <= self.digits <= 15, "digits", self.digits, "must be 1 to 15")
        require(self.shots >= 0, "shots", self.shots, "must be 0 or more")
        least = self.shots + 2
        if self.entries is not None:
            require(self.entries >= least, "entries", self.entries, f"must be {least} or more: the examples and two to choose from")
            require(self.entries <= self.names, "entries", self.entries, f"there are only {self.names} different names")
        needed = self.tokens(self.entries or least)
        if self.length < needed:
            raise ConfigError("length", self.length, f"{self.entries or least} entries need {needed} {self._unit}", "or fewer entries")

    @property
    def _unit(self) -> str:
        return "bytes" if self.form == "text" else "tokens"

    @property
    def names(self) -> int:
        """Different names."""
        return len(FIRST) * len(LAST) if self.form == "text" else (self.vocab_size - NAMES) ** 2

    @property
    def book(self) -> int:
        """Entries of the book."""
        most = (self.length - self.tokens(0)) // self.line
        return self.entries if self.entries is not None else min(most, self.names)

    @property
    def line(self) -> int:
        """Bytes or tokens of an entry."""
        return self.digits + self.name + (len(": \n") if self.form == "text" else 2)

    @property
    def name(self) -> int:
        """Bytes or tokens of a name."""
        return len("Aaron Abbott") if self.form == "text" else 2

    def tokens(self, entries: int) -> int:
        """Bytes or tokens that a model reads of a book of so many entries."""
        blank_lines = 2 if self.shots else 1
        asked_before = self.name + 2 if self.question == "first" else 0
        return asked_before + (entries + self.shots + 1) * self.line + blank_lines - 2  # without the answer's last digit and line end


class Script(NamedTuple):
    """How a book is written. b examples, n entries."""

    names: np.ndarray  # (b, n, w) ids
    colon: list[int]  # between name and number
    zero: int  # the digit 0
    end: int  # the line's end


def chance(config: Config) -> float:
    """A guess among the numbers of the book, the examples excluded (two numbers may be the same)."""
    candidates = config.book - config.shots
    return 1 / candidates + (1 - 1 / candidates) * 10.0**-config.digits


def generate(config: Config, seed: int, start: int, count: int) -> Batch:
    """Examples start .. start+count-1.

    info (b,): length, entries; entry (which one is asked for, from 0), depth (its share of the way through the book), distance
    (bytes or tokens from the first digit of the entry to the first scored position).
    """
    check_range(seed, start, count)
    n = config.book
    stream = ("phonebook", seed, config.form, config.vocab_size, n, config.digits, config.shots)
    draws = uniforms((*stream, "names"), start, count, 2 * n + config.shots + 1)
    drawn, order = subset(draws[:, :n], config.names), np.argsort(draws[:, n : 2 * n], axis=1, kind="stable")
    script = _script(config, np.take_along_axis(drawn, order, 1))
    numbers = integers(uniforms((*stream, "numbers"), start, count, n * config.digits), 10).reshape(count, n, config.digits)
    lines = _lines(script, numbers)
    picked = distinct(draws[:, 2 * n :], n)  # the entry asked for, then the examples
    again = np.take_along_axis(lines, picked[:, :, None], 1)

    blank = np.full((count, 1), script.end, dtype=np.int64)
    asked = again[:, 0, : config.name]
    before = [asked, blank, blank] if config.question == "first" else []
    parts = [*before, lines.reshape(count, -1), blank, again[:, 1:].reshape(count, -1), blank[:, : min(config.shots, 1)], again[:, 0, :-1]]
    body = np.concatenate(parts, axis=1)
    front = config.length + 1 - body.shape[1]
    whole = np.concatenate([np.repeat(blank, front, 1), body], axis=1)
    labels = whole[:, 1:].copy()
    labels[:, : -config.digits] = IGNORE
    entry = picked[:, 0]
    info = {"length": np.full(count, config.length), "entries": np.full(count, n), "entry": entry, "depth": entry / (n - 1)}
    book = front + sum(part.shape[1] for part in before)
    digit = book + entry * config.line + config.line - 1 - config.digits
    return batch(whole[:, :-1].copy(), labels, info | {"distance": config.length - config.digits - digit})


def _script(config: Config, names: np.ndarray) -> Script:
    """The script of names numbered (b, n)."""
    if config.form == "tokens":
        per_part = config.vocab_size - NAMES
        return Script(NAMES + np.stack([names // per_part, names % per_part], axis=-1), [1], 2, 0)
    written = [np.array([list(name.encode()) for name in part], dtype=np.int64) for part in (FIRST, LAST)]
    first, last = written[0][names // len(LAST)], written[1][names % len(LAST)]
    space = np.full((*names.shape, 1), ord(" "))
    return Script(np.concatenate([first, space, last], axis=-1), list(b": "), ord("0"), ord("\n"))


def _lines(script: Script, numbers: np.ndarray) -> np.ndarray:
    """(b, n, line): the entries, each with its line's end."""
    entries = numbers.shape[:2]
    colon, end = np.broadcast_to(script.colon, (*entries, len(script.colon))), np.full((*entries, 1), script.end)
    return np.concatenate([script.names, colon, script.zero + numbers, end], axis=-1)
