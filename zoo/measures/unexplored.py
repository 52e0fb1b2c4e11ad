"""Whether the states beyond the training length are states that training ever reached: the unexplored states hypothesis.

The reference is what training reaches from an empty state: the states of half of the documents, after `looks` evenly spaced numbers
of tokens up to the training length. The other half is read on, and its states are held against the reference, tensor by tensor and
head by head (see zoo.measures.state for what these are), inside the training length too: that is what a state looks like that is as
new as another document makes it.

    condition  layer=3;block=M;tensor=ssm[;head=0];token=1024       mean over the other documents, t over them
    metrics    distance: root of the mean over entries of ((S - mean) / deviation)^2, mean and deviation of the reference; about 1 =
                   like it. An entry that hardly moved counts as if it had 1 % of the head's typical deviation
               outside: share of the entries outside of the range that the reference has seen, by 1 % of that deviation at least
               auc: how well the distance tells the states after so many tokens from the same document's states within the
                   training length: the share of those that are nearer (ties half); 0.5 = not at all, 1 = perfectly.
                   Beyond the training length only
    condition  token=1024
    metrics    unexplored: share of all heads that are farther than each of the same document's looks inside the training length;
                   beyond the training length only. One more look inside would be so 1 / (looks + 1) of the time
               distance: the median over all heads

Ruiz & Gu (arXiv:2507.02782): models fail at states outside of what they reached from h_0 = 0 in training. Distances are scale-free:
a state multiplied by any number, together with its reference, is as far. What grows with the text (an attention cache) is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from blocks.errors import require
from zoo.measures.shared.base import Documents, Headline, MeasureConfig, Progress, Reads, Result, Row, long_documents, row
from zoo.measures.shared.state_tensors import Name, by_head, heads, held, place
from zoo.measures.shared.statistics import Array, mean_interval
from zoo.measures.shared.streaming import CALL_TOKENS, Counter, evaluating, spans, stream
from zoo.model.model import Model

SUMMARY = "whether states beyond the training length are states that training ever reached"
METRICS = ("distance", "outside", "auc", "unexplored")
HEADLINE = (Headline("unexplored", "% of heads in unexplored states", 100.0, key="token"),)
RESUMABLE = False
FLOOR = 0.01  # of a head's typical deviation


@dataclass(frozen=True, kw_only=True)
class Config(MeasureConfig):
    """Sizes of the measure."""

    train_length: int  # tokens of a training sequence
    times: int = 16  # documents are read to this multiple of it
    documents: int = 16  # the first so many, at least 4: half for the reference, half held against it
    looks: int = 8  # states of each document inside the training length
    per_doubling: int = 2  # states of each document beyond it
    call_tokens: int = CALL_TOKENS  # tokens that one forward call reads

    def __post_init__(self) -> None:
        require(self.train_length >= 2, "train_length", self.train_length, "must be at least 2")
        require(self.times >= 2, "times", self.times, "must be at least 2")
        require(self.documents >= 4, "documents", self.documents, "must be at least 4")
        require(2 <= self.looks <= self.train_length, "looks", self.looks, f"must be 2 .. {self.train_length}, the training length")
        require(self.per_doubling >= 1, "per_doubling", self.per_doubling, "must be positive")
        require(self.call_tokens >= 1, "call_tokens", self.call_tokens, "must be positive")

    @property
    def inside(self) -> list[int]:
        """Looks up to the training length."""
        return [self.train_length * (i + 1) // self.looks for i in range(self.looks)]

    @property
    def beyond(self) -> list[int]:
        """Looks beyond it."""
        w, last = self.train_length, self.train_length * self.times
        steps = range(1, math.ceil(self.per_doubling * math.log2(self.times)) + 1)
        return sorted({min(last, round(w * 2 ** (j / self.per_doubling))) for j in steps} - {w})

    @property
    def reads(self) -> Reads:
        return Reads(4, self.train_length * self.times)


def run(model: Model, config: Config, seed: int, *, data: Documents | None = None, progress: Progress | None = None) -> Result:
    """See the module. `data`: documents of train_length * times tokens at least. Nothing is random: `seed` is not read."""
    tokens = long_documents(data, config.documents, config.train_length * config.times)
    require(len(tokens) >= 4, "documents", len(tokens), "at least 4 documents are needed: half are the reference")
    known, other = tokens[: len(tokens) // 2, : config.train_length], tokens[len(tokens) // 2 :]
    counter = Counter(known.numel() + other.numel(), progress)
    with evaluating(model):
        reference = learn(_states(model, known, config.inside, config, counter))
        distances: dict[Name, dict[int, Far]] = {}
        for token, states in _states(model, other, [*config.inside, *config.beyond], config, counter):
            for name, x in states.items():
                if name in reference and reference[name].mean.shape == x.shape[1:]:
                    distances.setdefault(name, {})[token] = reference[name].far(x)
    everywhere = len(config.inside) + len(config.beyond)
    fixed = {name: looks for name, looks in distances.items() if len(looks) == everywhere}  # what changed its shape is no fixed state
    return Result(tuple(_rows(config, fixed) + _summary(config, fixed)))


class Far(NamedTuple):
    """How far states (b documents) of one tensor are from its reference: (b, h), or (b,) where it has no heads."""

    distance: Array
    outside: Array


@dataclass
class Reference:
    """What a tensor's states were in training: per entry, over documents and looks, float64."""

    count: int
    mean: Tensor  # the state's shape without the batch
    squares: Tensor  # sum of squared differences from the mean
    low: Tensor
    high: Tensor

    def add(self, x: Tensor) -> None:
        """With more states (b, ...): means and squares are joined without cancellation (Chan, Golub & LeVeque 1979)."""
        n, mean = len(x), x.mean(0)
        apart, total = mean - self.mean, self.count + len(x)
        self.squares = self.squares + (x - mean).square().sum(0) + apart.square() * (self.count * n / total)
        self.mean, self.count = self.mean + apart * (n / total), total
        self.low, self.high = torch.minimum(self.low, x.amin(0)), torch.maximum(self.high, x.amax(0))

    def far(self, x: Tensor) -> Far:
        """States (b, ...) held against this."""
        variance = heads((self.squares / max(1, self.count - 1))[None]).flatten(2)  # (1, h, entries)
        floor = FLOOR**2 * variance.mean(-1, keepdim=True)
        past = torch.maximum(heads(self.low - x), heads(x - self.high)).flatten(2)  # the range; negative inside it
        z = heads(x - self.mean).flatten(2).square() / torch.maximum(variance, floor)
        z = torch.where(z.isnan() & past.isfinite(), 0.0, z)  # 0 / 0: a head that never moved, and did not now
        out = ((past > floor.sqrt()) | ~past.isfinite()).double()
        distance = z.mean(-1).sqrt().nan_to_num(nan=math.inf, posinf=math.inf)
        return Far(by_head(x, distance), by_head(x, out.mean(-1)))


def learn(looks: Iterator[tuple[int, dict[Name, Tensor]]]) -> dict[Name, Reference]:
    """The reference of every tensor whose shape stays the same."""
    references: dict[Name, Reference] = {}
    changed: set[Name] = set()
    for _, states in looks:
        for name, x in states.items():
            if name not in references:
                empty = torch.zeros_like(x[0])
                references[name] = Reference(0, empty, empty, torch.full_like(empty, math.inf), torch.full_like(empty, -math.inf))
            if references[name].mean.shape == x.shape[1:]:
                references[name].add(x)
            else:
                changed.add(name)
    return {name: reference for name, reference in references.items() if name not in changed}


def _states(model: Model, tokens: Tensor, marks: list[int], config: Config, counter: Counter) -> Iterator[tuple[int, dict[Name, Tensor]]]:
    """(token, tensor -> (b, ...) float64, on the CPU) at every mark."""
    b, length = tokens.shape
    for read in stream(model, tokens, None, spans(length, max(1, config.call_tokens // b), marks)):
        token = read.start + read.nll.shape[1]
        counter.add(read.nll.numel())
        if token in marks:
            tensors = [(h.name, h.value) for h in held(model, read.state) if isinstance(h.value, Tensor)]
            yield token, {name: x.double().cpu() for name, x in tensors if x.is_floating_point() and x.numel() > 0}


def _rows(config: Config, distances: dict[Name, dict[int, Far]]) -> list[Row]:
    rows = []
    for name, looks in distances.items():
        near = np.stack([looks[token].distance for token in config.inside])  # (looks, b[, h])
        for token, far in looks.items():
            values = {"distance": far.distance, "outside": far.outside}
            if token > config.train_length:
                values["auc"] = ((near < far.distance) + 0.5 * (near == far.distance)).mean(0)
            for metric, column in values.items():
                spread = [({}, column)] if column.ndim == 1 else [({"head": head}, column[:, head]) for head in range(column.shape[1])]
                rows += [row(place(name) | head | {"token": token}, metric, mean_interval(x)) for head, x in spread]
    return rows


def _summary(config: Config, distances: dict[Name, dict[int, Far]]) -> list[Row]:
    """Over all heads."""
    if not distances:
        return []
    tokens = [*config.inside, *config.beyond]
    distance = {
        t: np.concatenate([looks[t].distance.reshape(len(looks[t].distance), -1) for looks in distances.values()], 1) for t in tokens
    }
    farthest = np.max([distance[token] for token in config.inside], 0)  # (b, heads)
    rows = [row({"token": token}, "distance", mean_interval(np.median(distance[token], 1))) for token in tokens]
    return rows + [row({"token": token}, "unexplored", mean_interval((distance[token] > farthest).mean(1))) for token in config.beyond]
