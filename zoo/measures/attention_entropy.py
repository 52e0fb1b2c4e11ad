"""How spread out attention is: entropy by layer, head and position, and how it grows with the length of the text.

Of a query's weights over the keys it sees, taken as shares: of differential attention the absolute difference of its two maps, of
a softmax with a sink logit what is left of it, both divided by their sum. A core of core-context attention is one key.

    condition  layer=3;block=A;head=0;position=64      queries at text positions from 64 up to the next bucket
    metrics    entropy (nats); keys (exp of it: the number of keys that would be attended evenly); first (share on the text's
               first token, the sink); recent (share on the last `recent` tokens, the query's own included); other (share on what
               is no token of the text: inserted tokens, cores); mean over queries, t over documents
    condition  layer=3;block=A;head=0
    metrics    slope: of the entropy against log(tokens read), by least squares over buckets, t over documents. 1: attention
               spreads over all of the text evenly however long it is (its dispersion); 0: it keeps its focus, or has a window

Buckets double: 1, 2, 4, ... In a bucket of more than `queries` positions so many are looked at, evenly spaced. A model without
attention, or with segment memory, has no rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from blocks.errors import require
from zoo.measures.shared.attention_heads import Head, Seen, heads_of, watching
from zoo.measures.shared.base import Documents, Headline, MeasureConfig, Progress, Reads, Result, Row, long_documents, row
from zoo.measures.shared.statistics import Array, mean_interval
from zoo.measures.shared.streaming import CALL_TOKENS, Counter, evaluating, spans, stream
from zoo.model.model import Model

SUMMARY = "entropy of attention by head and position, its growth with length, and the shares on the first and the last tokens"
BY_POSITION = ("entropy", "keys", "first", "recent", "other")
METRICS = (*BY_POSITION, "slope")
HEADLINE: tuple[Headline, ...] = ()  # a number a head is no headline
RESUMABLE = False


@dataclass(frozen=True, kw_only=True)
class Config(MeasureConfig):
    """Sizes of the measure."""

    length: int = 1024  # tokens of each document that are read
    documents: int = 4  # the first so many, at least 2
    queries: int = 64  # positions of a bucket that are looked at
    recent: int = 16  # tokens that count as recent
    call_tokens: int = CALL_TOKENS  # tokens that one forward call reads

    def __post_init__(self) -> None:
        require(self.length >= 4, "length", self.length, "must be at least 4: a slope needs two buckets")
        require(self.documents >= 2, "documents", self.documents, "must be at least 2")
        require(self.queries >= 1, "queries", self.queries, "must be positive")
        require(self.recent >= 1, "recent", self.recent, "must be positive")
        require(self.call_tokens >= 1, "call_tokens", self.call_tokens, "must be positive")

    @property
    def reads(self) -> Reads:
        return Reads(2, self.length)

    @property
    def buckets(self) -> list[Tensor]:
        """The positions that are looked at in each bucket, the bucket's first one first."""
        edges = [2**i for i in range((self.length - 1).bit_length())] + [self.length]
        return [_spaced(a, b, self.queries) for a, b in pairwise(edges)]


def run(model: Model, config: Config, seed: int, *, data: Documents | None = None, progress: Progress | None = None) -> Result:
    """See the module. `data`: documents of `length` tokens at least. Nothing is random: `seed` is not read."""
    tokens = long_documents(data, config.documents, config.length)
    counter, known, buckets = Counter(tokens.numel(), progress), heads_of(model), config.buckets
    with evaluating(model):
        means = _read(model, tokens, config, known, counter)
    lengths = np.array([(positions + 1).double().log().mean().item() for positions in buckets])
    rows: list[Row] = []
    for head, of_head in zip(known, means, strict=True):  # (documents, buckets, metrics)
        rows.append(row(head.where, "slope", mean_interval(_slopes(lengths, of_head[..., 0]))))
        for positions, values in zip(buckets, of_head.swapaxes(0, 1), strict=True):
            where = head.where | {"position": int(positions[0])}
            rows += [row(where, metric, mean_interval(values[:, i])) for i, metric in enumerate(BY_POSITION)]
    return Result(tuple(rows))


def _spaced(start: int, stop: int, most: int) -> Tensor:
    """At most so many of start .. stop - 1, evenly spaced, `start` among them."""
    n = min(most, stop - start)
    return start + torch.arange(n) * (stop - start) // n


def _read(model: Model, tokens: Tensor, config: Config, known: Sequence[Head], counter: Counter) -> Array:
    """(heads, documents, buckets, metrics): means over the queries of a bucket."""
    buckets = config.buckets
    wanted = torch.cat(buckets)
    of = torch.repeat_interleave(torch.arange(len(buckets)), torch.tensor([len(b) for b in buckets]))
    sums = torch.zeros(len(known), len(tokens), len(buckets), len(BY_POSITION), dtype=torch.float64)
    first = {head.slot: i for i, head in reversed(list(enumerate(known)))}

    def show(seen: Seen) -> None:
        values = _shares(seen, config.recent).cpu()  # (h, b, n, metrics)
        bucket = of[torch.searchsorted(wanted, seen.queries.cpu())]
        sums[first[seen.slot] : first[seen.slot] + len(values)].index_add_(2, bucket, values)

    piece = max(1, config.call_tokens // len(tokens))
    with watching(model, show, wanted):
        for read in stream(model, tokens, None, spans(config.length, piece)):
            counter.add(read.nll.numel())
    return (sums / torch.tensor([len(b) for b in buckets])[:, None]).numpy()


def _shares(seen: Seen, recent: int) -> Tensor:
    """The metrics of each query: (h, b, n, metrics) float64."""
    weights = seen.weights.abs().double().transpose(0, 1)
    p = weights / weights.sum(-1, keepdim=True)
    entropy = torch.special.entr(p).sum(-1)
    near = (seen.keys >= 0) & (seen.keys > seen.queries[:, None] - recent)  # what comes after the query has no weight
    parts = [p[..., seen.keys == 0].sum(-1), (p * near).sum(-1), p[..., seen.keys < 0].sum(-1)]
    return torch.stack([entropy, entropy.exp(), *parts], -1)


def _slopes(x: Array, y: Array) -> Array:
    """Least squares of y (documents, buckets) against x (buckets,): (documents,)."""
    centred = x - x.mean()
    return np.asarray(y @ centred / (centred @ centred))
