"""Text as documents of token ids: `Split`, `Corpus`, and the rules that share documents out among the splits.

All splits of a corpus are spans of one flat array. Text is bytes (256 ids), and every document begins with the byte 0: it ends
the document before it and starts its own, so every byte of a document, the first included, is predicted from something.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from blocks.errors import one_of
from zoo.tasks import IGNORE

SPLITS = ("train", "validation", "test")
SHARE = 0.05  # of the tokens, for validation and for test, where no rule of the corpus's own says more
RULE = "split by the hash of each document"  # in the fingerprint: version 2026.11 shared documents out otherwise
BYTES = 256
SEPARATOR = 0  # of byte documents


class Document(NamedTuple):
    """One document before it is tokenised."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Split:
    """Documents for one use: spans of a flat token array (which may be a memory map)."""

    tokens: np.ndarray  # (n,) uint8, uint16 or uint32, shared by all splits of a corpus
    starts: np.ndarray  # (documents,) int64, a document's separator included where it has one
    ends: np.ndarray  # (documents,) int64
    names: tuple[str, ...] | None = None  # None = known by number only
    separator: int | None = None  # the id that begins a document and so ends the one before; None = documents just stop
    n_bytes: int | None = None  # of text behind these documents; None = not known (ready-made token files)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(documents,) int64 tokens."""
        return self.ends - self.starts

    @property
    def n_documents(self) -> int:
        return len(self.starts)

    @cached_property
    def n_tokens(self) -> int:
        return int(self.lengths.sum())

    @property
    def bytes_per_token(self) -> float | None:
        """Divide nats a token by this and by ln 2 to get bits per byte; None = not known. Separators are not counted."""
        separators = 0 if self.separator is None else int((self.tokens[self.starts] == self.separator).sum())
        return None if self.n_bytes is None else self.n_bytes / max(self.n_tokens - separators, 1)

    @cached_property
    def closes(self) -> np.ndarray:
        """(documents,) int64: what follows a document's last token: the separator, or IGNORE where nothing says that it ends there."""
        if self.separator is None:
            return np.full(self.n_documents, IGNORE)
        after = self.tokens[np.minimum(self.ends, len(self.tokens) - 1)]
        return np.where((after == self.separator) | (self.ends == len(self.tokens)), self.separator, IGNORE).astype(np.int64)

    def name(self, index: int) -> str:
        """What to call a document."""
        return f"document {index}" if self.names is None else self.names[index]

    def document(self, index: int) -> np.ndarray:
        """(length,) the document's ids, its separator first where it has one; a view."""
        return self.tokens[self.starts[index] : self.ends[index]]


@dataclass(frozen=True)
class ReadingReport:
    """How a corpus was read from its files."""

    read: tuple[str, ...] = ()  # names of the files
    skipped: tuple[tuple[str, str], ...] = ()  # (name, why) of files that were left out
    notes: tuple[str, ...] = ()  # sentences for the user

    def reasons(self) -> dict[str, list[str]]:
        """Why files were skipped -> their names."""
        reasons: dict[str, list[str]] = {}
        for name, why in self.skipped:
            reasons.setdefault(why, []).append(name)
        return reasons


@dataclass(frozen=True)
class Corpus:
    """A labelled body of text, split by document. Results are comparable where label and fingerprint are equal."""

    label: str
    fingerprint: str  # SHA-256, hexadecimal
    vocab_size: int
    train: Split
    validation: Split
    test: Split
    report: ReadingReport = ReadingReport()

    def split(self, name: str) -> Split:
        """train | validation | test."""
        one_of("split", name, SPLITS)
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


def fingerprint(documents: Iterable[Document]) -> str:
    """SHA-256 over (name, length, bytes) of the documents in their order."""
    digest = hashlib.sha256()
    for name, data in documents:
        digest.update(name.encode() + b"\0" + len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


class Spans(NamedTuple):
    """Documents of a flat token array before they are shared out."""

    tokens: np.ndarray  # (n,)
    starts: np.ndarray  # (documents,) int64
    ends: np.ndarray  # (documents,) int64
    names: tuple[str, ...] | None
    n_bytes: np.ndarray | None  # (documents,) int64 of text behind each


def byte_corpus(label: str, print_: str, documents: Sequence[Document], side: Callable[[str], str] | None) -> Corpus:
    """A corpus of bytes. `side` names the split of a document; None = `shared_out`. Empty documents are left out."""
    full = [d for d in documents if d.data]
    tokens = np.frombuffer(b"".join(b"\0" + d.data for d in full), dtype=np.uint8)
    sizes = np.array([len(d.data) for d in full], dtype=np.int64)
    ends = np.cumsum(sizes + 1)
    spans = Spans(tokens, ends - sizes - 1, ends, tuple(d.name for d in full), sizes)
    if side is not None:
        return assemble(label, print_, BYTES, spans, np.array([SPLITS.index(side(d.name)) for d in full], dtype=np.int64), SEPARATOR)
    return split_by_contents(label, print_, BYTES, spans, [hashlib.sha256(d.data).digest() for d in full], SEPARATOR)


def split_by_contents(label: str, print_: str, vocab_size: int, spans: Spans, contents: Sequence[bytes], separator: int | None) -> Corpus:
    """A corpus `shared_out` by the digests of its documents; `cut` where they are fewer than three."""
    if len(set(contents)) < len(SPLITS):
        return assemble(label, print_, vocab_size, *cut(spans), separator)
    print_ = hashlib.sha256(f"{print_} {RULE}".encode()).hexdigest()
    return assemble(label, print_, vocab_size, spans, shared_out(contents, spans.ends - spans.starts), separator)


def assemble(label: str, print_: str, vocab_size: int, spans: Spans, sides: np.ndarray, separator: int | None) -> Corpus:
    """A corpus from spans and, for each, the index of its split in SPLITS."""
    train, validation, test = (_take(spans, np.flatnonzero((sides == i) & (spans.ends > spans.starts)), separator) for i in range(3))
    return Corpus(label, print_, vocab_size, train, validation, test)


def _take(spans: Spans, at: np.ndarray, separator: int | None) -> Split:
    size = None if spans.n_bytes is None else int(spans.n_bytes[at].sum())
    names = None if spans.names is None else tuple(spans.names[i] for i in at)
    return Split(spans.tokens, spans.starts[at], spans.ends[at], names, separator, size)


def shared_out(contents: Sequence[bytes], sizes: np.ndarray) -> np.ndarray:
    """The split of each document (index in SPLITS), from a hash of its contents: equal documents never part.

    A hash in the lowest SHARE of all hashes goes to test, in the next SHARE to validation, the rest to train, so that documents which
    come or go move no others. Documents larger than a split's whole share stay in train where others are enough; a split that would be
    empty is given the document whose own hash is the lowest.
    """
    groups: dict[bytes, list[int]] = {}
    for i, content in enumerate(contents):
        groups.setdefault(content, []).append(i)
    share = SHARE * float(sizes.sum())
    small = {content for content, members in groups.items() if float(sizes[members].sum()) <= share}
    side = {content: _side(_hash(content, "split")) if content in small else 0 for content in groups}
    for empty in (2, 1):
        if empty not in side.values():
            free = [content for content in groups if side[content] == 0]
            side[min(free, key=lambda content: (content not in small, _hash(content, SPLITS[empty])))] = empty
    sides = np.zeros(len(contents), dtype=np.int64)
    for content, members in groups.items():
        sides[members] = side[content]
    return sides


def _side(place: float) -> int:
    return 2 if place < SHARE else 1 if place < 2 * SHARE else 0


def _hash(content: bytes, use: str) -> float:
    """In [0, 1), another one for each use."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, person=use.encode()).digest(), "big") / 2**64


def cut(spans: Spans) -> tuple[Spans, np.ndarray]:
    """Each document in three: its first 90 % for train, the next 5 % for validation, the last 5 % for test.

    For a corpus of one or two documents, which no rule by document could share out.
    """
    sizes = spans.ends - spans.starts
    first, second = (spans.starts + (sizes * kept).astype(np.int64) for kept in (1 - 2 * SHARE, 1 - SHARE))
    starts, ends = np.concatenate([spans.starts, first, second]), np.concatenate([first, second, spans.ends])
    names = None if spans.names is None else tuple(f"{name}[{part}]" for part in SPLITS for name in spans.names)
    n_bytes = None
    if spans.n_bytes is not None:  # in proportion: exact for bytes but for the separator, which is in the first piece
        n_bytes = ((ends - starts) * np.tile(spans.n_bytes / sizes, 3)).round().astype(np.int64)
    return Spans(spans.tokens, starts, ends, names, n_bytes), np.repeat(np.arange(3), len(sizes))
