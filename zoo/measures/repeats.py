"""Associative recall in real text: the loss of tokens whose n-gram has occurred before in the same context, and of all others.

Zoology's split (arXiv:2312.04927): where the last n tokens, the predicted one included, stand in the context already, a model that looks
them up knows the answer; most of what recurrent models lose to attention on text is lost there. With `common`, n-grams that are frequent
in the other documents are none of these: a model knows them by heart.

n: 2 for tokens, 6 for bytes. In windows of 1024 bytes of US presidents' messages 43 % of all bytes end an n-gram of 3 that was there
before, 17 % one of 5, 11 % one of 6, 6 % one of 8: six, a word with its space, is the first that is no matter of spelling.

    condition  window=1024;tokens=repeats    or tokens=others; window=document: read whole, the state carried
    metrics    nll (nats a token), perplexity, share (of all predicted tokens); bootstrap over documents, over those that have such tokens;
               below nll and share alone
    condition  window=1024;tokens=repeats;distance=32      tokens back to the latest occurrence, octaves by their lower edge
    condition  window=1024;tokens=repeats;times=4          how often the n-gram was there before, octaves by their lower edge

An octave that a single document of several has is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from blocks.errors import require
from zoo.measures.shared.base import Documents, Headline, MeasureConfig, Progress, Reads, Result, Row, row, some_documents
from zoo.measures.shared.statistics import Array, Interval, ratio_interval
from zoo.measures.shared.streaming import CALL_TOKENS, Counter, evaluating, shape_of_call, spans, stream
from zoo.model.model import IGNORE, Model

SUMMARY = "loss on tokens that complete an n-gram seen before in the context (associative recall), and on all others"
METRICS = ("nll", "perplexity", "share")
HEADLINE = (Headline("perplexity", "perplexity", key="tokens", title="{tokens}".format_map),)
RESUMABLE = False
BYTES, BYTES_N, TOKENS_N = 256, 6, 2
OCTAVES = 33  # of distances and of counts: up to 2^32


@dataclass(frozen=True, kw_only=True)
class Config(MeasureConfig):
    """Sizes of the measure."""

    n: int | None = None  # tokens of an n-gram; null: 6 for a model of bytes (256 ids), 2 for any other
    window: int | None = 1024  # tokens read from an empty state, the context; null: whole documents, streamed
    common: float | None = None  # share of the other documents' n-grams above which one is known by heart; null: none is
    documents: int | None = None  # the first so many; null: all
    call_tokens: int = CALL_TOKENS  # tokens that one forward call reads

    def __post_init__(self) -> None:
        require(self.n is None or self.n >= 1, "n", self.n, "must be positive")
        require(self.window is None or self.window >= 1, "window", self.window, "must be positive, or null for whole documents")
        require(self.common is None or 0 <= self.common < 1, "common", self.common, "is a share, 0 or more and below 1", "1e-5")
        require(self.documents is None or self.documents >= 1, "documents", self.documents, "must be positive, or null for all")
        require(self.call_tokens >= 1, "call_tokens", self.call_tokens, "must be positive")

    @property
    def reads(self) -> Reads:
        return Reads(1 if self.common is None else 2, 2)


class Text(NamedTuple):
    """What is read on its own: tokens start .. start+length of a document, the first one not predicted."""

    document: int
    start: int
    length: int  # predicted tokens


class Sums(NamedTuple):
    """Sums over the predicted tokens of each document, by octave of distance and of times. Octave 0: no repeat; i: 2^(i-1) and more."""

    nats: Array  # (documents, OCTAVES, OCTAVES)
    counts: Array  # the same shape


def run(model: Model, config: Config, seed: int, *, data: Documents | None = None, progress: Progress | None = None) -> Result:
    """See the module. `data`: documents of 2 tokens or more."""
    documents = _documents(config, data)
    n = config.n or (BYTES_N if model.config.vocab_size == BYTES else TOKENS_N)
    grams = n_grams(documents, n)
    rare = None if config.common is None else not_common(grams, config.common)
    size = config.window or max(map(len, documents))
    texts = [Text(i, a, min(size, len(d) - 1 - a)) for i, d in enumerate(documents) for a in range(0, len(d) - 1, size)]
    texts.sort(key=lambda text: text.length)  # neighbours of like length waste little padding
    counter = Counter(sum(text.length for text in texts), progress)
    shape = (len(documents), OCTAVES, OCTAVES)
    sums = Sums(np.zeros(shape), np.zeros(shape))
    with evaluating(model):
        while texts:
            beside, piece = shape_of_call(len(texts), texts[-1].length, config.call_tokens)
            batch, texts = texts[-beside:], texts[:-beside]
            _read(model, documents, batch, [_octaves(grams, rare, n, text) for text in batch], piece, sums)
            counter.add(sum(text.length for text in batch))
    return Result(tuple(_rows({"window": config.window or "document"}, sums, seed)))


def n_grams(documents: Sequence[np.ndarray], n: int) -> list[np.ndarray]:
    """For each document the numbers (length - n + 1,) of its n-grams, by where they start; equal n-grams have equal numbers."""
    _, tokens = np.unique(np.concatenate(documents), return_inverse=True)
    width, numbers = int(tokens.max()) + 1, tokens
    for size in range(2, n + 1):
        _, numbers = np.unique(numbers[:-1] * width + tokens[size - 1 :], return_inverse=True)
    starts = np.cumsum([0, *map(len, documents)])
    return [numbers[a : max(a, b - n + 1)] for a, b in pairwise(starts.tolist())]


def not_common(grams: Sequence[np.ndarray], common: float) -> list[np.ndarray]:
    """For each document, whether its n-grams make up a share of `common` at most of those of all other documents."""
    joined, owner = np.concatenate(grams), np.repeat(np.arange(len(grams)), list(map(len, grams)))
    _, where, own = np.unique(owner * (int(joined.max(initial=0)) + 1) + joined, return_inverse=True, return_counts=True)
    elsewhere = np.bincount(joined)[joined] - own[where]
    sizes = np.bincount(owner, minlength=len(grams))
    rare = elsewhere <= common * (len(joined) - sizes[owner])
    return np.split(rare, np.cumsum(sizes)[:-1])


def repeated(grams: np.ndarray) -> np.ndarray:
    """(2, m) int64 of n-grams (m,): how far back the latest occurrence is, and how many there were before; 0 where there was none."""
    order = np.argsort(grams, kind="stable")
    again = np.concatenate([[False], grams[order][1:] == grams[order][:-1]])[: len(grams)]
    places = np.arange(len(grams))
    repeats = np.zeros((2, len(grams)), dtype=np.int64)
    repeats[0, order] = np.where(again, np.diff(order, prepend=0), 0)
    repeats[1, order] = places - np.maximum.accumulate(np.where(again, 0, places))
    return repeats


def _documents(config: Config, data: Documents | None) -> list[np.ndarray]:
    chosen = [document.long().numpy() for document in some_documents(data, config.documents)]
    if config.common is not None:
        require(len(chosen) >= 2, "documents", len(chosen), "at least 2 documents are needed to know what is common in others")
    return chosen


def _octaves(grams: list[np.ndarray], rare: list[np.ndarray] | None, n: int, text: Text) -> torch.Tensor:
    """(length, 2) int64: the octaves of distance and times of each predicted token of a text."""
    inside = slice(text.start, max(text.start, text.start + text.length + 2 - n))
    repeats = repeated(grams[text.document][inside])
    if rare is not None:
        repeats = repeats * rare[text.document][inside]
    of_tokens = np.zeros((2, text.length + 1), dtype=np.int64)  # the first one is not predicted
    of_tokens[:, of_tokens.shape[1] - repeats.shape[1] :] = np.frexp(repeats.astype(np.float64))[1]
    return torch.from_numpy(of_tokens[:, 1:].T)


def _read(
    model: Model, documents: Sequence[np.ndarray], batch: Sequence[Text], octaves: Sequence[torch.Tensor], piece: int, sums: Sums
) -> None:
    """Read texts side by side and add what they cost to the sums. Padding is at the right, where no scored token sees it."""
    rows = [torch.from_numpy(documents[text.document][text.start : text.start + text.length + 1]) for text in batch]
    tokens = pad_sequence([row[:-1] for row in rows], batch_first=True)
    labels = pad_sequence([row[1:] for row in rows], batch_first=True, padding_value=IGNORE)
    where = pad_sequence(list(octaves), batch_first=True).numpy()
    owner = np.array([text.document for text in batch])
    for r in stream(model, tokens, labels, spans(tokens.shape[1], piece)):
        part = slice(r.start, r.start + r.nll.shape[1])
        row, at = np.nonzero((labels[:, part] != IGNORE).numpy())
        cell = (owner[row], *where[:, part][row, at].T)
        np.add.at(sums.nats, cell, r.nll.numpy()[row, at])
        np.add.at(sums.counts, cell, 1.0)


def _rows(window: dict[str, Any], sums: Sums, seed: int) -> list[Row]:
    by_distance, by_times = (Sums(sums.nats.sum(axis), sums.counts.sum(axis)) for axis in (2, 1))
    totals, where = by_distance.counts.sum(1), window | {"tokens": "repeats"}
    nats, counts = by_distance
    rows = _group(window | {"tokens": "others"}, nats[:, 0], counts[:, 0], totals, seed)
    rows += _group(where, nats[:, 1:].sum(1), counts[:, 1:].sum(1), totals, seed)
    for key, (nats, counts) in (("distance", by_distance), ("times", by_times)):
        for octave in range(1, OCTAVES):
            if (counts[:, octave] > 0).sum() >= min(2, len(totals)):
                of_octave = _group(where | {key: 1 << (octave - 1)}, nats[:, octave], counts[:, octave], totals, seed)
                rows += [r for r in of_octave if r.metric != "perplexity"]
    return rows


def _group(where: dict[str, Any], nats: Array, counts: Array, totals: Array, seed: int) -> list[Row]:
    """The rows of some tokens: nats (documents,) of counts (documents,) out of totals (documents,)."""
    share = row(where, "share", ratio_interval(counts, totals, seed))
    if not counts.any():
        return [share]
    loss = ratio_interval(nats[counts > 0], counts[counts > 0], seed)
    perplexity = Interval(math.exp(loss.value), math.exp(loss.low), math.exp(loss.high), loss.n)
    return [row(where, "nll", loss), row(where, "perplexity", perplexity), share]
