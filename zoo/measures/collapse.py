"""Loss by position far beyond the training length: does the state that is carried still help, or has it collapsed?

Each document is read in one stream, the state carried, to `times` x the training length. The same tokens are then predicted from
windows: the state reset, at most the last `train_length` tokens as context (3/4 of them at least). The excess = stream - window
is paired on the same tokens, so that the difficulty of the text, which drifts along a document, cancels out.

The position of a token is the number of tokens before it. Buckets are even in log position, with an edge at the training length;
`position=` is a bucket's first position, its end is the next bucket's (of the last: `length`).

    condition  position=512
    metrics    nll_stream, nll_window, excess (nats a token; mean over documents, t over documents; excess is paired)
    condition  train_length=256;length=4096;margin=0.05
    metrics    onset: the first bucket beyond the training length from which the excess is above the margin, and its interval
                   above 0, for two buckets in a row; inf = no collapse
               onset_ratio: onset / train_length
               collapsed: 1 or 0
               leaves_minimum: the first bucket after its minimum from which the streamed loss is above that minimum, by the
                   same rule; inf = never. It needs no windows, but text that gets harder moves it too
               excess_beyond: mean excess of the buckets beyond the training length (the area over log position)

The first four have bootstrap intervals over documents. Protocol after Stuffed Mamba (arXiv:2410.07145).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from blocks.base import require
from zoo.measures.base import Documents, MeasureConfig, Progress, Reads, Result, Row, long_documents, row
from zoo.measures.reading import CALL_TOKENS, Counter, evaluating, next_labels, shape_of_call, spans, stream
from zoo.model import IGNORE, Model
from zoo.statistics import Array, Interval, bootstrap, mean_interval, student

SUMMARY = "loss by position, streamed against windowed, to many times the training length; where the state collapses"
FIRST_EDGE = 8  # the loss of the first tokens is one bucket


@dataclass(frozen=True, kw_only=True)
class Config(MeasureConfig):
    """Sizes of the measure."""

    train_length: int  # tokens of a training sequence
    times: int = 16  # documents are read to this multiple of it
    documents: int = 8  # the first so many, at least 2
    per_doubling: int = 2  # buckets
    stride: int | None = None  # tokens that a window predicts; null: a quarter of the training length
    margin: float = 0.05  # nats
    call_tokens: int = CALL_TOKENS  # tokens that one forward call reads

    def __post_init__(self) -> None:
        require(self.train_length >= 4, "train_length", self.train_length, "must be at least 4")
        require(self.times >= 2, "times", self.times, "must be at least 2")
        require(self.documents >= 2, "documents", self.documents, "must be at least 2")
        require(self.per_doubling >= 1, "per_doubling", self.per_doubling, "must be positive")
        stride_fits = self.stride is None or 1 <= self.stride <= self.train_length
        require(stride_fits, "stride", self.stride, f"must be 1 .. {self.train_length}, the training length")
        require(self.margin >= 0, "margin", self.margin, "must be 0 or more")
        require(self.call_tokens >= 1, "call_tokens", self.call_tokens, "must be positive")

    @property
    def reads(self) -> Reads:
        return Reads(2, self.length)

    @property
    def length(self) -> int:
        """Tokens of each document that are read."""
        return self.train_length * self.times

    @property
    def edges(self) -> list[int]:
        """Bucket j holds the positions edges[j] .. edges[j+1] - 1."""
        low = -math.floor(self.per_doubling * math.log2(self.train_length / FIRST_EDGE)) if self.train_length > FIRST_EDGE else 0
        high = math.ceil(self.per_doubling * math.log2(self.times))
        inner = {round(self.train_length * 2 ** (j / self.per_doubling)) for j in range(low, high)}
        return sorted(inner | {1, self.length})


def run(model: Model, config: Config, seed: int, *, data: Documents | None = None, progress: Progress | None = None) -> Result:
    """See the module. `data`: documents of train_length * times tokens at least; `seed` draws the bootstrap."""
    tokens = long_documents(data, config.documents, config.length)
    buckets = Buckets(config.edges, len(tokens))
    counter = Counter(tokens.numel() + len(tokens) * sum(w.length for w in windows(config)), progress)
    with evaluating(model):
        streamed = buckets.mean(_streamed(model, tokens, config, counter))
        windowed = buckets.mean(_windowed(model, tokens, config, counter))
    return Result(tuple(_curve(config, streamed, windowed) + _summary(config, streamed, streamed - windowed, seed)))


class Scored(NamedTuple):
    """Losses of some tokens."""

    document: Tensor  # (r,) int64, of each row
    position: Tensor  # (r, t) int64
    nll: Tensor  # (r, t) float64
    scored: Tensor  # (r, t) bool


class Buckets:
    """The mean loss of each document in each bucket, summed up piece by piece."""

    def __init__(self, edges: list[int], documents: int) -> None:
        self.edges, self.documents = torch.tensor(edges), documents

    def mean(self, pieces: Iterator[Scored]) -> Array:
        """(documents, buckets) nats a token."""
        n = len(self.edges) - 1
        sums, counts = torch.zeros(self.documents * n, dtype=torch.float64), torch.zeros(self.documents * n, dtype=torch.float64)
        for document, position, nll, scored in pieces:
            bucket = torch.bucketize(position.contiguous(), self.edges, right=True) - 1
            cell = (document[:, None] * n + bucket)[scored]
            sums.index_add_(0, cell, nll[scored])
            counts.index_add_(0, cell, torch.ones(len(cell), dtype=torch.float64))
        return (sums / counts).reshape(self.documents, n).numpy()


def _streamed(model: Model, tokens: Tensor, config: Config, counter: Counter) -> Iterator[Scored]:
    """All documents beside each other, in pieces."""
    b, length = tokens.shape
    cuts = spans(length, max(1, config.call_tokens // b))
    labels = next_labels(tokens)
    for read in stream(model, tokens, labels, cuts):
        position = torch.arange(read.start + 1, read.start + 1 + read.nll.shape[1]).expand(b, -1)
        counter.add(read.nll.numel())
        yield Scored(torch.arange(b), position, read.nll, labels[:, read.start : read.start + read.nll.shape[1]] != IGNORE)


class Window(NamedTuple):
    """Tokens start .. start+length-1 are read from an empty state; the last `scored` of them predict their next token."""

    start: int
    length: int
    scored: int


def windows(config: Config) -> list[Window]:
    """The windows of a document: every position is predicted once, in the first window all, then a stride in each."""
    w, last = config.train_length, config.length - 1
    stops = [*range(w, last, config.stride or max(1, w // 4)), last]
    return [Window(stop - w, w, stop - before) for before, stop in zip([0, *stops], stops, strict=False)]


def _windowed(model: Model, tokens: Tensor, config: Config, counter: Counter) -> Iterator[Scored]:
    """All windows of all documents, many beside each other."""
    todo = [(document, window) for document in range(len(tokens)) for window in windows(config)]
    rows, piece = shape_of_call(len(todo), config.train_length, config.call_tokens)
    for first in range(0, len(todo), rows):
        batch = todo[first : first + rows]
        inputs = torch.stack([tokens[d, w.start : w.start + w.length] for d, w in batch])
        targets = torch.stack([tokens[d, w.start + 1 : w.start + 1 + w.length] for d, w in batch])
        scored = torch.arange(config.train_length) >= torch.tensor([[w.length - w.scored] for _, w in batch])
        reads = stream(model, inputs, targets.masked_fill(~scored, IGNORE), spans(config.train_length, piece))
        nll = torch.cat([read.nll for read in reads], 1)
        position = torch.tensor([[w.start + 1] for _, w in batch]) + torch.arange(config.train_length)
        counter.add(inputs.numel())
        yield Scored(torch.tensor([d for d, _ in batch]), position, nll, scored)


def _curve(config: Config, streamed: Array, windowed: Array) -> list[Row]:
    rows = []
    for j, position in enumerate(config.edges[:-1]):
        for metric, values in (("nll_stream", streamed), ("nll_window", windowed), ("excess", streamed - windowed)):
            rows.append(row({"position": position}, metric, mean_interval(values[:, j])))
    return rows


def _summary(config: Config, streamed: Array, excess: Array, seed: int) -> list[Row]:
    edges, w = np.array(config.edges[:-1], dtype=np.float64), config.train_length
    where = {"train_length": w, "length": config.length, "margin": float(config.margin)}
    onset = bootstrap(excess, partial(_onset, edges=edges, config=config), seed)
    leaves = bootstrap(streamed, partial(_leaves, edges=edges, margin=config.margin), seed)
    ratio = Interval(onset.value / w, onset.low / w, onset.high / w, onset.n)
    collapsed = Interval(_reached(onset.value), _reached(onset.high), _reached(onset.low), onset.n)
    beyond = mean_interval(excess[:, edges >= w].mean(1))
    found = {"onset": onset, "onset_ratio": ratio, "collapsed": collapsed, "leaves_minimum": leaves, "excess_beyond": beyond}
    return [row(where, metric, interval) for metric, interval in found.items()]


def _onset(excess: Array, *, edges: Array, config: Config) -> Array:
    """excess (r, documents, buckets) -> (r,) see the module."""
    return _first(excess, edges, edges >= config.train_length, config.margin)


def _leaves(streamed: Array, *, edges: Array, margin: float) -> Array:
    """streamed (r, documents, buckets) -> (r,) see the module."""
    lowest = np.nan_to_num(streamed.mean(1), nan=np.inf).argmin(-1)
    with np.errstate(invalid="ignore"):
        rise = streamed - np.take_along_axis(streamed, lowest[:, None, None], -1)
    return _first(rise, edges, np.arange(len(edges)) > lowest[:, None], margin)


def _first(values: Array, edges: Array, allowed: np.ndarray, margin: float) -> Array:
    """(r,) the first allowed edge from which the mean over documents is above the margin, and its t interval above 0, twice in a row.
    A loss that is infinite or no number is above any margin."""
    broken = ~np.isfinite(values).all(1)
    with np.errstate(invalid="ignore"):
        mean, half = values.mean(1), student(values.shape[1]) * values.std(1, ddof=1) / math.sqrt(values.shape[1])
    above = ((mean > margin) & (mean - half > 0) | broken) & allowed
    twice = above[:, :-1] & above[:, 1:]
    return np.where(twice.any(-1), edges[twice.argmax(-1)], np.inf)


def _reached(position: float) -> float:
    return float(math.isfinite(position))
