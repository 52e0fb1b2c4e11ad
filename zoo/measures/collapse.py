"""Loss by position far beyond the training length: does the state that is carried still help, or has it collapsed?

Each text is read in one stream, the state carried, to `times` x the training length. The same tokens are then predicted from
windows: the state reset, at most the last `train_length` tokens as context (3/4 of them at least). The excess = stream - window
is paired on the same tokens, so that the difficulty of the text, which drifts along a document, cancels out.

The position of a token is the number of tokens before it. Buckets are even in log position, with an edge at the training length;
`position=` is a bucket's first position, its end is the next bucket's (of the last: `length`). All conditions begin with
`prompt=...` unless the prompt is `documents` (zoo.measures.shared.prompts).

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
               loss_ratio: the largest streamed loss of a bucket beyond the training length / the largest inside it
               collapsed_2x: whether that is above 2, or the loss is no number: the criterion of Stuffed Mamba. It needs no windows

All but excess_beyond have bootstrap intervals over documents. Windows cost times as much as the stream, or more: with `windows: 4`
at most 4 of them, evenly spread, meet each bucket, nll_window and excess are of the tokens that these predict, and the condition says
`windows=4`; with `windows: 0` there are none and no rows that need them. Protocol after Stuffed Mamba (arXiv:2410.07145).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from blocks.errors import require
from zoo.measures.shared.base import Documents, Headline, Progress, Result, ResumeStore, Row, row
from zoo.measures.shared.collapse_onset import leaves_minimum, loss_ratio, onset, reached
from zoo.measures.shared.prompts import PromptConfig
from zoo.measures.shared.statistics import Array, Interval, bootstrap
from zoo.measures.shared.streaming import CALL_TOKENS, Counter, evaluating, next_labels, resumed, shape_of_call, spans, stream
from zoo.model.model import IGNORE, Model

SUMMARY = "loss by position, streamed against windowed, to many times the training length; where the state collapses"
METRICS = (
    *("nll_stream", "nll_window", "excess", "onset", "onset_ratio", "collapsed"),
    *("leaves_minimum", "excess_beyond", "loss_ratio", "collapsed_2x"),
)
HEADLINE = (
    Headline("onset", "onset (position)"),
    Headline("excess_beyond", "excess (nats)"),
    Headline("loss_ratio", "largest loss beyond / inside the training length"),
)
RESUMABLE = True
FIRST_EDGE = 8  # the loss of the first tokens is one bucket
TWICE = 2.0  # the largest loss inside the training length: beyond that a state counts as collapsed


@dataclass(frozen=True, kw_only=True)
class Config(PromptConfig):
    """Sizes of the measure."""

    train_length: int  # tokens of a training sequence
    times: int = 16  # texts are read to this multiple of it
    per_doubling: int = 2  # buckets of positions in each doubling of the position
    stride: int | None = None  # tokens that a window predicts; null: a quarter of the training length
    windows: int | None = None  # read windows that meet a bucket, at most; null: all; 0: none
    margin: float = 0.05  # nats a token: an excess above it counts as a collapse
    call_tokens: int = CALL_TOKENS  # tokens that one forward call reads

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.train_length >= 4, "train_length", self.train_length, "must be at least 4")
        require(self.times >= 2, "times", self.times, "must be at least 2")
        require(self.per_doubling >= 1, "per_doubling", self.per_doubling, "must be positive")
        stride_fits = self.stride is None or 1 <= self.stride <= self.train_length
        require(stride_fits, "stride", self.stride, f"must be 1 .. {self.train_length}, the training length")
        require(self.windows is None or self.windows >= 0, "windows", self.windows, "must be 0 or more, or null for all")
        require(self.margin >= 0, "margin", self.margin, "must be 0 or more")
        require(self.call_tokens >= 1, "call_tokens", self.call_tokens, "must be positive")

    @property
    def needed(self) -> int:
        return self.length

    @property
    def length(self) -> int:
        """Tokens of each text that are read."""
        return self.train_length * self.times

    @property
    def edges(self) -> list[int]:
        """Bucket j holds the positions edges[j] .. edges[j+1] - 1."""
        low = -math.floor(self.per_doubling * math.log2(self.train_length / FIRST_EDGE)) if self.train_length > FIRST_EDGE else 0
        high = math.ceil(self.per_doubling * math.log2(self.times))
        inner = {round(self.train_length * 2 ** (j / self.per_doubling)) for j in range(low, high)}
        return sorted(inner | {1, self.length})


def run(
    model: Model,
    config: Config,
    seed: int,
    *,
    data: Documents | None = None,
    progress: Progress | None = None,
    keep: ResumeStore | None = None,
) -> Result:
    """See the module. `data`: documents as config.reads says; `seed` draws the bootstrap."""
    tokens = config.texts(data)
    chosen = windows(config)
    counter = Counter(tokens.numel() + len(tokens) * len(chosen) * config.train_length, progress)
    reader = Reader(model, config, tokens, chosen, counter, keep)
    with evaluating(model):
        reader.read_stream()
        reader.read_windows()
    streamed, paired, windowed = (sums.mean() for sums in (reader.sofar.streamed, reader.sofar.paired, reader.sofar.windowed))
    rows = _rows(config, "nll_stream", streamed) + _stream_summary(config, streamed, seed)
    if chosen:
        rows += _rows(config, "nll_window", windowed) + _rows(config, "excess", paired - windowed)
        rows += _excess_summary(config, paired - windowed, seed)
    return Result(tuple(rows))


class Sums(NamedTuple):
    """Losses summed up by document and bucket."""

    nats: Tensor  # (documents, buckets) float64
    tokens: Tensor  # (documents, buckets) float64: how many were scored

    def mean(self) -> Array:
        """(documents, buckets) nats a token; NaN where none was scored."""
        return (self.nats / self.tokens).numpy()

    def add(self, edges: Tensor, document: Tensor, position: Tensor, nll: Tensor, scored: Tensor) -> Sums:
        """With the losses nll (r, t) of the documents (r,), at positions (r, t), where `scored` (r, t)."""
        cell = (document[:, None] * self.nats.shape[1] + torch.bucketize(position.contiguous(), edges, right=True) - 1)[scored]
        nats = self.nats.flatten().index_add(0, cell, nll[scored])
        tokens = self.tokens.flatten().index_add(0, cell, torch.ones(len(cell), dtype=torch.float64))
        return Sums(nats.reshape(self.nats.shape), tokens.reshape(self.nats.shape))


class SoFar(NamedTuple):
    """What has been read: enough to go on."""

    pieces: int  # of the stream
    state: Any  # after them; None once the stream is read
    streamed: Sums
    paired: Sums  # of the stream, at the tokens that windows predict
    batches: int  # of windows
    windowed: Sums


class Reader:
    """Reads both ways, saving as it goes."""

    def __init__(
        self, model: Model, config: Config, tokens: Tensor, chosen: list[Window], counter: Counter, keep: ResumeStore | None
    ) -> None:
        self.model, self.config, self.tokens, self.windows, self.counter, self.keep = model, config, tokens, chosen, counter, keep
        self.edges = torch.tensor(config.edges)
        empty = Sums(*torch.zeros(2, len(tokens), len(config.edges) - 1, dtype=torch.float64))
        kept = None if keep is None else keep.load()
        self.sofar = SoFar(0, None, empty, empty, 0, empty) if kept is None else kept

    def read_stream(self) -> None:
        """All texts beside each other, in pieces."""
        (b, length), done = self.tokens.shape, self.sofar.pieces
        cuts, labels = spans(length, max(1, self.config.call_tokens // b)), next_labels(self.tokens)
        self.counter.add(b * sum(stop - start for start, stop in cuts[:done]))
        for read in stream(self.model, self.tokens, labels, cuts[done:], resumed(self.model, self.sofar.state)):
            t = read.nll.shape[1]
            position = torch.arange(read.start + 1, read.start + 1 + t).expand(b, t)
            scored = labels[:, read.start : read.start + t] != IGNORE
            what = self.edges, torch.arange(b), position, read.nll
            paired = self.sofar.paired.add(*what, scored & _predicted(self.windows, position))
            last = self.sofar.pieces + 1 == len(cuts)
            self.sofar = self.sofar._replace(
                pieces=self.sofar.pieces + 1,
                state=None if last else read.state,
                streamed=self.sofar.streamed.add(*what, scored),
                paired=paired,
            )
            self._save()
            self.counter.add(b * t)

    def read_windows(self) -> None:
        """All windows of all texts, many beside each other."""
        w, done = self.config.train_length, self.sofar.batches
        todo = [(document, window) for document in range(len(self.tokens)) for window in self.windows]
        rows, piece = shape_of_call(len(todo) or 1, w, self.config.call_tokens)
        self.counter.add(w * min(len(todo), rows * done))
        for first in range(rows * done, len(todo), rows):
            batch = todo[first : first + rows]
            inputs = torch.stack([self.tokens[d, o.start : o.start + w] for d, o in batch])
            targets = torch.stack([self.tokens[d, o.start + 1 : o.start + 1 + w] for d, o in batch])
            position = torch.tensor([[o.start + 1] for _, o in batch]) + torch.arange(w)
            scored = position >= torch.tensor([[o.first] for _, o in batch])
            reads = stream(self.model, inputs, targets.masked_fill(~scored, IGNORE), spans(w, piece))
            nll = torch.cat([read.nll for read in reads], 1)
            windowed = self.sofar.windowed.add(self.edges, torch.tensor([d for d, _ in batch]), position, nll, scored)
            self.sofar = self.sofar._replace(batches=self.sofar.batches + 1, windowed=windowed)
            self._save()
            self.counter.add(inputs.numel())

    def _save(self) -> None:
        if self.keep is not None:
            self.keep.save(self.sofar)


class Window(NamedTuple):
    """Tokens start .. last-1 are read from an empty state; positions first .. last are predicted."""

    start: int
    first: int
    last: int


def windows(config: Config) -> list[Window]:
    """The windows of a text. With all of them every position is predicted once, in the first window all, then a stride in each."""
    w, last = config.train_length, config.length - 1
    stops = [*range(w, last, config.stride or max(1, w // 4)), last]
    before = [0, *stops[:-1]]
    chosen = list(range(len(stops)))
    if config.windows is not None:  # of those that predict positions low .. high-1 of each bucket
        chosen = []
        for low, high in pairwise(config.edges):
            chosen += _spread(int(np.searchsorted(stops, low)), int(np.searchsorted(before, high - 1)), config.windows)
    return [Window(stops[i] - w, before[i] + 1, stops[i]) for i in sorted(set(chosen))]


def _spread(first: int, end: int, count: int) -> list[int]:
    """At most `count` of first .. end-1, in the middle of equal stretches."""
    n = end - first
    return list(range(first, end)) if n <= count else [first + (2 * j + 1) * n // (2 * count) for j in range(count)]


def _predicted(chosen: list[Window], position: Tensor) -> Tensor:
    """(r, t) bool: whether one of these windows predicts the token at this position."""
    if not chosen:
        return torch.zeros_like(position, dtype=torch.bool)
    first = torch.tensor([window.first for window in chosen])
    last = torch.tensor([window.last for window in chosen])
    i = torch.searchsorted(last, position.contiguous()).clamp(max=len(chosen) - 1)
    return (first[i] <= position) & (position <= last[i])


def _rows(config: Config, metric: str, values: Array) -> list[Row]:
    """A metric (documents, buckets) by position."""
    return [row(config.where | {"position": edge}, metric, config.interval(values[:, j])) for j, edge in enumerate(config.edges[:-1])]


def _summary(config: Config, intervals: dict[str, Interval]) -> list[Row]:
    where = config.where | {"train_length": config.train_length, "length": config.length, "margin": float(config.margin)}
    where |= {} if config.windows is None else {"windows": config.windows}
    return [row(where, metric, interval) for metric, interval in intervals.items()]


def _stream_summary(config: Config, streamed: Array, seed: int) -> list[Row]:
    """What needs no windows."""
    edges = np.array(config.edges[:-1], dtype=np.float64)
    leaves = _over_texts(config, streamed, partial(leaves_minimum, edges=edges, margin=config.margin), seed)
    ratio = _over_texts(config, streamed, partial(loss_ratio, beyond=edges >= config.train_length), seed)
    twice = Interval(float(ratio.value > TWICE), float(ratio.low > TWICE), float(ratio.high > TWICE), ratio.n)
    return _summary(config, {"leaves_minimum": leaves, "loss_ratio": ratio, "collapsed_2x": twice})


def _excess_summary(config: Config, excess: Array, seed: int) -> list[Row]:
    """What is said of the excess."""
    edges, w = np.array(config.edges[:-1], dtype=np.float64), config.train_length
    first = _over_texts(config, excess, partial(onset, edges=edges, inside=w, margin=config.margin), seed)
    ratio = Interval(first.value / w, first.low / w, first.high / w, first.n)
    collapsed = Interval(reached(first.value), reached(first.high), reached(first.low), first.n)
    beyond = config.interval(excess[:, edges >= w].mean(1))
    return _summary(config, {"onset": first, "onset_ratio": ratio, "collapsed": collapsed, "excess_beyond": beyond})


def _over_texts(config: Config, values: Array, statistic: Callable[[Array], Array], seed: int) -> Interval:
    """A statistic (r, documents, buckets) -> (r,) with its bootstrap interval over texts; exact where there is one text only."""
    return config.interval(statistic(values[None])) if len(values) == 1 else bootstrap(values, statistic, seed)
