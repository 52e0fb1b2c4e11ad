"""Facts in a haystack: persons go to places, take objects along and drop them; where is someone, or something, at the end?

The world of bAbI (arXiv:1502.05698), told a sentence at a time between the sentences of a long text as in BABILong (arXiv:2406.10149).
It stands for RULER's question answering (arXiv:2404.06654), whose documents can't come along.

    facts: 1    where a person is: the last place the person went to
    facts: 2    where an object is: who took it last, and where that person went, or was when the object was dropped
    facts: 3    where an object was before it came to where it is: the place before, in addition

    form: tokens   an event is 0 (went to), 1 (took) or 2 (dropped), person, place or object; the question 3, person or object, place
    form: text     Maria went to the garden.

First everyone goes somewhere, then someone takes something; after that persons, places and objects are drawn. Events keep their order.
An object taken for the first time was where it was taken. In tokens persons, places and objects are ids from 12 on, in this order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from blocks.errors import require
from zoo.tasks.shared import haystack
from zoo.tasks.shared.base import Batch, check_range, integers, uniforms
from zoo.tasks.shared.haystack import NAMES, joined, sample

SUMMARY = "bAbI's world in a haystack: persons, places and objects; where is one of them, by 1 to 3 facts (tokens or bytes)"
HAYSTACKS = ("noise", "random", "text")
CLUE = b"\nQuestion: Where "
HEADER = b"Some facts are hidden within the following text. Memorize them. I will quiz you about them afterwards.\n"
PERSONS = ["Aaron", "Bella", "Clara", "David", "Elena", "Felix", "Grace", "Henry", "Irene", "Jacob", "Maria", "Oscar"]
PLACES = ["cellar", "garden", "harbor", "market", "museum", "office", "palace", "school", "studio", "temple"]
OBJECTS = ["basket", "bottle", "candle", "hammer", "ladder", "mirror", "needle", "pencil", "ribbon", "saddle", "teapot", "violin"]
VERBS = (" went to the ", " took up the ", " dropped the ")
WENT, TOOK, DROPPED = range(3)
QUESTIONS = {
    1: (b"\nQuestion: Where is ", b"? Answer: in the "),
    2: (b"\nQuestion: Where is the ", b"? Answer: in the "),
    3: (b"\nQuestion: Where was the ", b" before it came to where it is? Answer: in the "),
}


@dataclass(frozen=True, kw_only=True)
class Config(haystack.HaystackText):
    """Sizes of one condition."""

    clue: ClassVar[bytes] = CLUE
    vocab_size: int = 256  # text: 256
    length: int = 512  # tokens or bytes that the model reads, the answer's last one excluded
    form: str = "tokens"  # tokens | text (bytes)
    haystack: str = "noise"  # noise (the same words again and again) | random | text (a document given to generate)
    facts: int = 1  # that the answer follows from, 1 to 3
    events: int = 10  # told, the facts included
    persons: int = 4  # that the events are about
    places: int = 6  # that persons go to
    objects: int = 3  # that persons take and leave

    def __post_init__(self) -> None:
        require(self.facts in QUESTIONS, "facts", self.facts, "must be 1, 2 or 3")
        for name, least, pool in (("persons", 1, PERSONS), ("places", 2, PLACES), ("objects", 1, OBJECTS)):
            size = getattr(self, name)
            require(least <= size, name, size, f"must be {least} or more")
            require(self.form == "tokens" or size <= len(pool), name, size, f"has only {len(pool)} words with form text")
        haystack.check(self, HAYSTACKS, self.persons + self.places + self.objects)
        least = self.persons + self.facts - 1
        require(self.events >= least, "events", self.events, f"must be {least} or more: all persons go somewhere first")
        haystack.check_room(self, self.events, self.slots, self.length - self.room + self.events * self.width)

    @property
    def width(self) -> int:
        """Tokens or bytes of an event."""
        return 3 if self.form == "tokens" else len("\nMaria went to the garden.\n")

    @property
    def room(self) -> int:
        """Tokens or bytes of the haystack, events included."""
        if self.form == "tokens":
            return self.length + 1 - 3
        asked = len(PERSONS[0]) if self.facts == 1 else len(OBJECTS[0])
        return self.length + 1 - len(HEADER) - sum(map(len, QUESTIONS[self.facts])) - asked - len(PLACES[0])

    @property
    def slots(self) -> int:
        """Places for an event."""
        return self.room // self.width


class Events(NamedTuple):
    """What happens. b examples, e events."""

    verb: np.ndarray  # (b, e)
    person: np.ndarray  # (b, e)
    thing: np.ndarray  # (b, e) a place, or an object


class World(NamedTuple):
    """Where everything is. b examples, p persons, o objects; -1: nowhere yet, no one, never."""

    at: np.ndarray  # (b, p) place
    moved: np.ndarray  # (b, p) event that brought the person there
    holder: np.ndarray  # (b, o) person; -1 where the object lies
    place: np.ndarray  # (b, 2, o) where the object is, and was before
    shown: np.ndarray  # (b, 2, o) event that names that place


def chance(config: Config) -> float:
    """A guess among all places."""
    return 1 / config.places


def generate(config: Config, seed: int, start: int, count: int, text: bytes | None = None) -> Batch:
    """Examples start .. start+count-1. `text`: the document that `haystack: text` cuts its haystacks from.

    info: length, events (b,); distance (b, t), tokens or bytes from a scored position back to the same place of the event that names
    the answer, 0 where nothing is asked.
    """
    check_range(seed, start, count)
    sizes = (config.facts, config.events, config.persons, config.places, config.objects)
    stream = ("facts", seed, config.form, config.vocab_size, config.length, config.haystack, *sizes)
    events, world = _told(config, uniforms((*stream, "events"), start, count, config.persons + config.events * (3 + config.objects)))
    drawn = uniforms((*stream, "asked"), start, count, max(config.persons, config.objects))
    asked, answer, shown = _asked(config, world, drawn)
    slot = np.sort(sample((*stream, "slots"), start, count, config.events, config.slots), axis=1)
    free = config.room - config.events * config.width
    hay = haystack.filler(config, stream, start, count, free, text, CLUE)
    body = haystack.strew(_units(config, events), slot, hay)

    header, (before, between) = (b"", (b"\3", b"")) if config.form == "tokens" else (HEADER, QUESTIONS[config.facts])
    subject = _words(config, "persons" if config.facts == 1 else "objects", asked)
    named = _words(config, "places", answer)
    whole = joined(header, body.ids, before, subject, between, named)
    size = named.shape[1]
    end = 0 if config.form == "tokens" else len(".\n")
    source = len(header) + np.take_along_axis(body.start, shown[:, None], 1) + config.width - end - size + np.arange(size)
    at = np.tile(config.length + 1 - size + np.arange(size), (count, 1))
    return haystack.scored(whole, at, source, {"events": np.full(count, config.events)})


def _told(config: Config, u: np.ndarray) -> tuple[Events, World]:
    """The events of each row of uniforms (b, ...), and the world after them."""
    b, p, o = len(u), config.persons, config.objects
    order, u = np.argsort(u[:, :p], axis=1, kind="stable"), u[:, p:].reshape(b, config.events, -1)
    persons, objects, pairs = (np.full(shape, -1) for shape in ((b, p), (b, o), (b, 2, o)))
    world = World(persons, persons.copy(), objects, pairs, pairs.copy())
    events = Events(*(np.empty((b, config.events), dtype=np.int64) for _ in Events._fields))
    for e in range(config.events):
        person, moves = integers(u[:, e, 0], p), u[:, e, 1] < 0.5
        if e < p:
            person, moves = order[:, e], np.full(b, True)
        elif e == p:
            moves = np.full(b, False)
        elif e == p + 1 and config.facts == 3:
            person, moves = events.person[:, p], np.full(b, True)
        verb, thing = _happens(config, world, e, person, moves, u[:, e, 2:])
        events.verb[:, e], events.person[:, e], events.thing[:, e] = verb, person, thing
    return events, world


def _happens(config: Config, world: World, e: int, person: np.ndarray, moves: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Event e in every row: the verb and the thing (b,). Who does not move drops what he holds, or takes what lies there, if he can."""
    rows = np.arange(len(person))
    here = world.at[rows, person]
    holds = world.holder == person[:, None]
    in_reach = (world.holder < 0) & ((world.place[:, 0] < 0) | (world.place[:, 0] == here[:, None]))
    drops = ~moves & holds.any(1)
    takes = ~moves & ~drops & in_reach.any(1)
    chosen = np.where(np.where(drops[:, None], holds, in_reach), u[:, 1:], -1.0).argmax(1)
    there = np.where(here < 0, integers(u[:, 0], config.places), (here + 1 + integers(u[:, 0], config.places - 1)) % config.places)

    world.holder[rows[drops], chosen[drops]] = -1
    world.holder[rows[takes], chosen[takes]] = person[takes]
    world.place[rows[takes], 0, chosen[takes]] = here[takes]
    world.shown[rows[takes], 0, chosen[takes]] = world.moved[rows, person][takes]
    goes = ~drops & ~takes
    world.at[rows[goes], person[goes]], world.moved[rows[goes], person[goes]] = there[goes], e
    row, carried = np.nonzero(holds & goes[:, None])
    for kept, new in ((world.place, there[row]), (world.shown, e)):
        kept[row, 1, carried] = kept[row, 0, carried]
        kept[row, 0, carried] = new
    return np.where(drops, DROPPED, np.where(takes, TOOK, WENT)), np.where(goes, there, chosen)


def _asked(config: Config, world: World, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(b,) each: which person or object is asked for, the place that is the answer, the event that names it."""
    known, shown = (world.at, world.moved) if config.facts == 1 else (world.place[:, config.facts - 2], world.shown[:, config.facts - 2])
    asked = np.where(known >= 0, u[:, : known.shape[1]], -1.0).argmax(1)
    rows = np.arange(len(asked))
    return asked, known[rows, asked], shown[rows, asked]


def _words(config: Config, kind: str, which: np.ndarray) -> np.ndarray:
    """(..., w): persons, places or objects numbered `which` (...), in ids or bytes."""
    if config.form == "tokens":
        first = NAMES + {"persons": 0, "places": config.persons, "objects": config.persons + config.places}[kind]
        return first + which[..., None]
    pool = {"persons": PERSONS, "places": PLACES, "objects": OBJECTS}[kind]
    written: np.ndarray = np.array([list(word.encode()) for word in pool], dtype=np.int64)[which]
    return written


def _units(config: Config, events: Events) -> np.ndarray:
    """(b, e, width)"""
    went = events.verb[..., None] == WENT
    top = {"places": config.places - 1, "objects": config.objects - 1}
    place, thing = (_words(config, kind, np.minimum(events.thing, most)) for kind, most in top.items())
    person, thing = _words(config, "persons", events.person), np.where(went, place, thing)
    if config.form == "tokens":
        return np.concatenate([events.verb[..., None], person, thing], axis=-1)
    verbs = np.array([list(verb.encode()) for verb in VERBS], dtype=np.int64)[events.verb]
    return joined(b"\n", person, verbs, thing, b".\n")
