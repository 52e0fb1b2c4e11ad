"""Real text in tasks: which conditions read it, and how documents become what the task's `generate` takes.

    haystack: text    (passkey, needle, threading, variable_tracking, facts) filler is cut from the documents, joined by line ends
    form: text        (many_shot) a class is a document, its examples are the document's pieces of `size` bytes

Documents are byte ids (256 of them), with or without a separator (byte 0) in front. What a task needs, and which documents it leaves out,
stands in its Config, see base.ReadsText.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from blocks.errors import ConfigError, require
from zoo.tasks import TASKS
from zoo.tasks.shared.base import Batch, ReadsText, TextNeeds
from zoo.tasks.shared.haystack import HaystackText

BYTES = 256

Documents = Sequence[np.ndarray]  # (length,) ids each
Draw = Callable[[int, int, int], Batch]  # (seed, first example, how many)


def needs(config: Any) -> TextNeeds | None:
    """The real text that a task's Config asks for; None: none."""
    return config.text_needs() if isinstance(config, ReadsText) else None


def drawing(task: str, config: Any, documents: Documents | None = None) -> Draw:
    """generate(seed, first, count) of a task's Config, with real text where it asks for it. Raises ConfigError where there is none."""
    module: Any = TASKS[task]
    if needs(config) is None:
        return lambda seed, start, count: module.generate(config, seed, start, count)
    if documents is None:
        place = "haystack" if isinstance(config, HaystackText) else "form"
        raise ConfigError(place, "text", "needs documents", "corpus: sotu, or path: FOLDER, beside the fields of the task")
    arguments = config.text_arguments([_bytes(document) for document in documents])
    return lambda seed, start, count: module.generate(config, seed, start, count, **arguments)


def _bytes(document: np.ndarray) -> bytes:
    require(int(document.max(initial=0)) < BYTES, "haystack", "text", "needs documents of bytes")
    return document.astype(np.uint8).tobytes().removeprefix(b"\0")
