"""Tasks with a haystack: units of equal width (needles, pairs, assignments, events) placed at random in a long filler.

    [header] haystack with a unit in some of its slots [question, answer] [question, answer] ...

The haystack is cut into slots of a unit's width from its end on; the filler runs on around the units, none of it is lost. Everything is
teacher-forced: labels stand only where a token of an answer is next.

    form: tokens   ids: 0 .. 3 marks, 4 .. 11 the words of noise, 12 .. V-1 what names and values are made of
    form: text     bytes

    haystack: noise    the same words over and over: it costs a memory nothing
    haystack: random   tokens: any id but the marks, drawn independently; text: random words
    haystack: text     form text only: a document given to generate(..., text=bytes)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from blocks.errors import ConfigError, one_of, require
from zoo.tasks.shared.base import IGNORE, Batch, ReadsText, TextNeeds, batch, integers, placed, speaks_of, uniforms

FORMS = ("tokens", "text")
MARKS, NAMES = 4, 12  # first id of the noise, first id of names and values
DECK = 4096  # numbers that `sample` shuffles as a whole
MOST = 1 << 53  # different names: what a uniform of 53 bits can tell apart

SENTENCES = b"The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
ADJECTIVES = """agile amber ample azure basic bland blunt brave brief broad brown cheap civic clean clear close crisp curly daily dense
eager early equal exact faint fancy fatal fifth final first fixed fresh funny giant glass grand grave great green gross
happy harsh heavy ideal inner ivory jolly juicy known large light lilac local loose lucky lunar major mauve merry minor
misty modal moist moral muddy naive noble noisy novel oaken olive outer plain plump proud quick quiet rapid ready right
rigid rival roast rocky rough round royal rural rusty salty sandy sharp shiny short silky sixth"""
NOUNS = """acorn adobe agate alarm album altar angle ankle apple apron arena arrow aspen atlas attic badge bagel baker basil beach
beard bench berry birch blade board boots brick bride brook broom brush cabin cable camel candy canoe cargo cedar chain
chair chalk chess chest chime cider cigar clerk cliff clock cloud clove coach coast cobra comet coral couch crane cream
creek crown daisy dance depot diary diner drain drama dress drill drums eagle easel elbow ember fable fairy fence ferry
field flame flask fleet flute forge frame fruit gauge ghost glove goose grape grass hazel heart"""
FIRST, SECOND = ADJECTIVES.split(), NOUNS.split()  # five letters each, as many of both
WORDS = np.array([list(f"{word} ".encode()) for word in FIRST + SECOND], dtype=np.int64)  # (words, 6)


class Haystacked(Protocol):
    """The fields of a task's Config that are read here."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def form(self) -> str: ...
    @property
    def length(self) -> int: ...
    @property
    def haystack(self) -> str: ...


class HaystackText(ReadsText):
    """Of a Config with `haystack: text`, whose filler is cut from documents, joined by line ends."""

    clue: ClassVar[bytes]  # documents that hold it are left out: they speak of what the task hides

    @property
    def haystack(self) -> str:
        raise NotImplementedError

    @property
    def room(self) -> int:
        raise NotImplementedError

    def text_needs(self) -> TextNeeds | None:
        return TextNeeds(1, 1 + self.room) if self.haystack == "text" else None

    def text_arguments(self, texts: Sequence[bytes]) -> dict[str, Any]:
        return {"text": b"\n".join(text for text in texts if self.clue.lower() not in text.lower())}


class Strewn(NamedTuple):
    """A haystack with its units."""

    ids: np.ndarray  # (b, room)
    start: np.ndarray  # (b, n) first position of each unit


def check(config: Haystacked, haystacks: tuple[str, ...], ids: int) -> None:
    """Raise ConfigError unless form, haystack and vocab_size go together; `ids`: what names and values need at least."""
    one_of("form", config.form, FORMS)
    one_of("haystack", config.haystack, haystacks)
    if config.form == "text":
        require(config.vocab_size == 256, "vocab_size", config.vocab_size, "must be 256 with form text: bytes", "form: tokens")
        return
    least = NAMES + ids
    require(config.vocab_size >= least, "vocab_size", config.vocab_size, f"must be {least} or more: marks, noise, names")
    require(config.haystack != "text", "haystack", "text", "is a document of bytes", "form: text")


def check_names(place: str, size: int, base: int, needed: int) -> None:
    """Raise ConfigError unless names of `size` ids out of `base` are enough for `needed` different ones."""
    require(size >= 1, place, size, "must be positive")
    require(base**size <= MOST, place, size, f"makes more names than can be drawn: {base}^{size}", "a smaller one")
    require(base**size >= needed, place, size, f"makes {base**size} different names, {needed} are needed", "a larger one")


def check_room(config: Haystacked, units: int, slots: int, shortest: int) -> None:
    """Raise ConfigError unless `units` fit into `slots`; `shortest`: the length that would do."""
    unit = "bytes" if config.form == "text" else "tokens"
    require(units <= slots, "length", config.length, f"{units} units, header and questions need {shortest} {unit}", "or fewer units")


def sample(stream: tuple[Any, ...], start: int, count: int, k: int, high: int) -> np.ndarray:
    """(count, k) int64: k different numbers of [0, high) in random order for each example of the stream.

    Up to DECK a shuffled deck, whose subsets are all as likely. Beyond, k log k steps whatever `high`: order statistics moved apart, in
    which a number's odds differ from the even ones by about k / high at most.
    """
    if high <= DECK:
        return np.argsort(uniforms(stream, start, count, high), axis=1, kind="stable")[:, :k]
    u = uniforms(stream, start, count, 2 * k)
    rising = np.sort(integers(u[:, :k], high - k + 1), axis=1) + np.arange(k)
    return np.take_along_axis(rising, np.argsort(u[:, k:], axis=1, kind="stable"), 1)


def codes(stream: tuple[Any, ...], start: int, count: int, k: int, base: int, size: int) -> np.ndarray:
    """(count, k, size) int64: k different codes of `size` digits in this base for each example of the stream."""
    return written(sample(stream, start, count, k, base**size), base, size)


def written(numbers: np.ndarray, base: int, size: int) -> np.ndarray:
    """(..., size) int64: the digits of numbers (...) in this base, the most significant first."""
    return numbers[..., None] // base ** np.arange(size - 1, -1, -1, dtype=np.int64) % base


def joined(*parts: Sequence[int] | bytes | np.ndarray) -> np.ndarray:
    """(..., w): constants and arrays (..., wi) side by side."""
    lead = next(part for part in parts if isinstance(part, np.ndarray)).shape[:-1]
    arrays = [part if isinstance(part, np.ndarray) else np.array(list(part), dtype=np.int64) for part in parts]
    return np.concatenate([np.broadcast_to(part, (*lead, part.shape[-1])) for part in arrays], axis=-1)


def strew(units: np.ndarray, slot: np.ndarray, filler: np.ndarray) -> Strewn:
    """units (b, n, w) put into the slots (b, n) of a room that units and filler (b, f) fill exactly."""
    (count, n, width), free = units.shape, filler.shape[1]
    room = n * width + free
    start = room % width + width * slot
    at = (np.sort(start, axis=1)[:, :, None] + np.arange(width)).reshape(count, -1)
    taken = np.zeros((count, room), dtype=bool)
    np.put_along_axis(taken, at, True, 1)
    ids = np.empty((count, room), dtype=np.int64)
    ids[~taken] = filler.reshape(-1)
    ids[taken] = np.take_along_axis(units, np.argsort(slot, axis=1)[:, :, None], 1).reshape(-1)
    return Strewn(ids, start)


def filler(config: Haystacked, stream: tuple[Any, ...], start: int, count: int, room: int, text: bytes | None, clue: bytes) -> np.ndarray:
    """(b, room) ids of filler; `clue`: what a document must not speak of."""
    require(text is None or config.haystack == "text", "haystack", config.haystack, "uses no document", "haystack: text")
    if config.haystack == "text":
        return _cut(config, uniforms((*stream, "filler"), start, count, 1)[:, 0], room, text, clue)
    if config.haystack == "random" and config.form == "tokens":
        return MARKS + integers(uniforms((*stream, "filler"), start, count, room), config.vocab_size - MARKS)
    if config.haystack == "random":
        words = WORDS[integers(uniforms((*stream, "filler"), start, count, room // 6 + 1), len(WORDS))]
        return words.reshape(count, -1)[:, :room]
    once = np.arange(MARKS, NAMES) if config.form == "tokens" else np.frombuffer(SENTENCES, dtype=np.uint8).astype(np.int64)
    return np.tile(np.resize(once, room), (count, 1))


def _cut(config: Haystacked, u: np.ndarray, room: int, text: bytes | None, clue: bytes) -> np.ndarray:
    if text is None:
        raise ConfigError("haystack", "text", "needs a document: generate(..., text=bytes)", "haystack: noise")
    rule = f"needs {room} bytes of haystack, the document has {len(text)}"
    require(len(text) >= room, "length", config.length, rule, "a longer document")
    require(not speaks_of(text, clue), "haystack", "text", f"the document holds {clue.decode()!r} itself", "another document")
    document = np.frombuffer(text, dtype=np.uint8)
    return document[integers(u, len(text) - room + 1)[:, None] + np.arange(room)].astype(np.int64)


def scored(whole: np.ndarray, at: np.ndarray, source: np.ndarray, info: dict[str, np.ndarray]) -> Batch:
    """The Batch of rows (b, length+1) whose ids at the positions `at` (b, n) are the answers, copies of those at `source` (b, n).

    info gains length (b,) and distance (b, t), tokens from a scored position back to the one before the answer's source; what is
    (b, n) there becomes (b, t), 0 where nothing is asked.
    """
    count, length = len(whole), whole.shape[1] - 1
    labels = placed(at - 1, np.take_along_axis(whole, at, 1), length, IGNORE)
    per_position = {"distance": at - source} | {name: value for name, value in info.items() if value.ndim == 2}
    out = {"length": np.full(count, length)} | {name: value for name, value in info.items() if value.ndim == 1}
    for name, value in per_position.items():
        spots = np.zeros((count, length), dtype=value.dtype)
        np.put_along_axis(spots, at - 1, value, 1)
        out[name] = spots
    return batch(whole[:, :-1].copy(), labels, out)
