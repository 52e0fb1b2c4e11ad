"""Batches from a split: `TextStream` for training, fixed windows and whole documents for evaluation.

Batch i is a pure function of (seed, i, batch size): a run that goes on at step i draws what it would have drawn.

window  a document with p proportional to its length, then length+1 tokens of it from a random place; documents shorter than
        that are never drawn (`coverage` is the share of the tokens that can be).
packed  the documents, shuffled anew each epoch, joined, cut into pieces, and the pieces shuffled; a sequence holds parts of several
        documents, told apart by `documents`.
stream  the same joined text, cut into as many lanes as the batch has rows; row r of batch i goes on where row r of batch i-1
        stopped, for truncated backpropagation through time: the trainer carries the state, `documents` says where to drop it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from blocks.errors import ConfigError, one_of, require
from train.data.corpus import Split
from zoo.tasks.shared.base import integers, uniforms

MODES = ("window", "packed", "stream")


class Batch(NamedTuple):
    """What a training step reads. b sequences, t time."""

    inputs: Tensor  # (b, t) int64
    labels: Tensor  # (b, t) int64: the next token; IGNORE where nothing is scored
    documents: Tensor | None  # (b, t) int64 ids: a new document starts where the id changes; None = one document a sequence

    def split(self, size: int) -> list[Batch]:
        """Micro-batches of `size` sequences."""
        documents = [None] * (len(self.inputs) // size) if self.documents is None else self.documents.split(size)
        return [Batch(*part) for part in zip(self.inputs.split(size), self.labels.split(size), documents, strict=True)]

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(None if x is None else x.to(device) for x in self))  # type: ignore[arg-type]


class Windows(NamedTuple):
    """Fixed pieces of documents. n windows, t time."""

    inputs: Tensor  # (n, t) int64
    labels: Tensor  # (n, t) int64
    document: Tensor  # (n,) int64: the window's document in the split, to pair and to bootstrap by


class Whole(NamedTuple):
    """One document, to be read from its start. t = its tokens but the last."""

    name: str
    inputs: Tensor  # (t,) int64, the separator first
    labels: Tensor  # (t,) int64: every byte of the document is predicted once


class TextStream:
    """The training batches of a split, see the module. length: tokens a row. Raises ConfigError (place `length`, `mode`) now, not later."""

    def __init__(self, split: Split, length: int, seed: int = 0, mode: str = "window") -> None:
        one_of("mode", mode, MODES)
        require(length >= 1, "length", length, "must be positive")
        require(seed >= 0, "seed", seed, "must be 0 or more")
        self.split, self.length, self.seed, self.mode = split, length, seed, mode
        self._order: tuple[int, _Joined] | None = None
        if mode == "window":
            self._long = _LongEnough(split, length)
        else:
            require(split.n_tokens > length, "length", length, f"the split has only {split.n_tokens} tokens")

    @property
    def coverage(self) -> float:
        """Share of the split's tokens that this stream can draw from."""
        return self._long.n_tokens / self.split.n_tokens if self.mode == "window" else 1.0

    def limits(self) -> list[str]:
        """What the training text holds that these batches never ask for, in sentences."""
        if self.mode != "window":
            return []
        lines = [f"windows of {self.length} tokens reach {self.coverage:.1%} of the training text"] if self.coverage < 1 else []
        if self.split.separator is not None:
            lines.append("mode window never asks for the end of a document, so zoo generate won't stop by itself (mode: packed learns it)")
        return lines

    def batch(self, step: int, batch_size: int) -> Batch:
        """Batch `step` (0, 1, ...)."""
        require(step >= 0, "step", step, "must be 0 or more")
        require(batch_size >= 1, "batch_size", batch_size, "must be positive")
        if self.mode == "window":
            u = uniforms(("window", self.seed), step * batch_size, batch_size, 2)
            inputs, labels, _ = self._long.windows(u)
            return Batch(inputs, labels, None)
        return self._packed(step, batch_size) if self.mode == "packed" else self._stream(step, batch_size)

    def _packed(self, step: int, batch_size: int) -> Batch:
        pieces = self.split.n_tokens // self.length
        numbers = np.arange(step * batch_size, (step + 1) * batch_size)
        parts = []
        for epoch in np.unique(numbers // pieces):
            joined = self._joined(int(epoch))
            mine = joined.shuffled(pieces)[numbers[numbers // pieces == epoch] % pieces]
            parts.append(joined.read(mine[:, None] * self.length + np.arange(self.length)))
        return Batch(*(torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True)))

    def _stream(self, step: int, batch_size: int) -> Batch:
        lane = self.split.n_tokens // batch_size
        steps = lane // self.length
        if steps == 0:
            rule = f"{batch_size} lanes of {self.split.n_tokens} tokens are shorter than {self.length}"
            raise ConfigError("batch_size", batch_size, rule, f"at most {self.split.n_tokens // self.length}")
        joined = self._joined(step // steps)
        at = np.arange(batch_size)[:, None] * lane + (step % steps) * self.length + np.arange(self.length)
        return Batch(*(torch.from_numpy(column) for column in joined.read(at)))

    def _joined(self, epoch: int) -> _Joined:
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, _Joined(self.split, self.seed, epoch))
        return self._order[1]


class _LongEnough:
    """The documents of a split that hold a window of length+1 tokens."""

    def __init__(self, split: Split, length: int) -> None:
        self.split, self.length = split, length
        self.documents = np.flatnonzero(split.lengths > length)
        if not len(self.documents):
            longest = int(split.lengths.max(initial=0))
            rule = f"no document is longer than {length} tokens" if longest else "the split is empty"
            raise ConfigError("length", length, rule, f"at most {longest - 1}; or mode: packed" if longest > 1 else "more text")
        self.ends = np.cumsum(split.lengths[self.documents])
        self.n_tokens = int(self.ends[-1])

    def windows(self, u: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """inputs (n, length), labels and the documents (n,) from uniforms (n, 2): which document, and where in it."""
        document = self.documents[np.searchsorted(self.ends, integers(u[:, 0], self.n_tokens), side="right")]
        offset = (u[:, 1] * (self.split.lengths[document] - self.length)).astype(np.int64)
        at = (self.split.starts[document] + offset)[:, None] + np.arange(self.length + 1)
        tokens = torch.from_numpy(self.split.tokens[at].astype(np.int64))
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), torch.from_numpy(document)


class _Joined:
    """The documents of a split in an epoch's order, end to end."""

    def __init__(self, split: Split, seed: int, epoch: int) -> None:
        self.split, self.epoch, self.key = split, epoch, (seed, epoch)
        self.order = self._shuffle("documents", split.n_documents)
        self.ends = np.cumsum(split.lengths[self.order])
        self._pieces: np.ndarray | None = None

    def _shuffle(self, what: str, n: int) -> np.ndarray:
        return np.argsort(uniforms((what, *self.key), 0, 1, n)[0], kind="stable")

    def shuffled(self, pieces: int) -> np.ndarray:
        """The epoch's order of the pieces."""
        if self._pieces is None:
            self._pieces = self._shuffle("pieces", pieces)
        return self._pieces

    def read(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """inputs, labels and document ids (b, t) int64 at places `at` (b, t) of the joined text."""
        split, place = self.split, np.searchsorted(self.ends, at, side="right")
        document = self.order[place]
        here = split.ends[document] - (self.ends[place] - at)  # counted back from the document's end
        last = self.ends[place] - at == 1
        following = split.tokens[np.minimum(here + 1, len(split.tokens) - 1)].astype(np.int64)
        labels = np.where(last, split.closes[document], following)
        return split.tokens[here].astype(np.int64), labels, self.epoch * split.n_documents + place


def validation_windows(split: Split, length: int, count: int, seed: int = 0) -> Windows:
    """`count` windows of `length` tokens that never change, spread evenly: one from each of `count` equal stretches of the text."""
    require(count >= 1, "count", count, "must be positive")
    u = uniforms(("validation", seed), 0, count, 2)
    u[:, 0] = (np.arange(count) + u[:, 0]) / count
    return Windows(*_LongEnough(split, length).windows(u))


def long_documents(split: Split, min_length: int) -> list[Whole]:
    """Every document of at least `min_length` tokens (bytes, in a corpus of bytes), one a sequence, in the split's order."""
    at = np.flatnonzero(split.lengths >= min_length).tolist()
    if not at:
        raise ConfigError("min_length", min_length, f"the longest document has {int(split.lengths.max(initial=0))} tokens")
    documents = []
    for i in at:
        tokens = torch.from_numpy(split.document(i).astype(np.int64))
        documents.append(Whole(split.name(i), tokens[:-1], tokens[1:]))
    return documents
