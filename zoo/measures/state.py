"""What the state looks like while it is read into, and how long it keeps what it holds: by layer, tensor and head.

Generic over blocks: every tensor of every state. A matrix state (b, h, k, v) is taken head by head, any other tensor as one. Of
what grows with the text (an attention cache) only the size is reported. Channels are the last axis (values, in a matrix state).

    condition  token=4096
    metrics    state_bytes (of one sequence, all layers)
    condition  layer=3;block=M;tensor=ssm[;head=0];token=4096     after so many tokens; mean over documents, t over documents
    metrics    norm (Frobenius), mean, variance (of the entries), peak_share (the largest channel's share of the energy),
               peak_channel (which), effective_rank ((sum s)^2 / sum s^2 of the singular values, 1 .. min(k, v); matrix states)
               for a cache: bytes
    condition  layer=3;block=M;tensor=ssm[;head=0];horizon=256
    metrics    retention (zoo.measures.retention)

What goes wrong first when a state collapses is the norm of a few heads and channels (Stuffed Mamba, arXiv:2410.07145), in
heads with a retention near 1 over the whole training length. Under segment memory (tokens.memory) layers are
emptied at every segment: only the memory is looked at, and there is no retention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from blocks.base import require, state_bytes
from zoo.measures.base import Documents, MeasureConfig, Progress, Reads, Result, Row, exact_row, long_documents, row
from zoo.measures.held import MATRIX, Held, Name, by_head, heads, held
from zoo.measures.reading import CALL_TOKENS, Counter, evaluating, spans, stream
from zoo.measures.retention import retention
from zoo.model import Model
from zoo.statistics import Array, mean_interval

SUMMARY = "the state by layer and head: norm, variance, largest channel, effective rank, retention"
TINY = 1e-300  # a state of zeros has no peak and no rank: 0 / TINY = 0


@dataclass(frozen=True, kw_only=True)
class Config(MeasureConfig):
    """Sizes of the measure."""

    length: int = 4096  # tokens of each document that are read
    every: int = 512  # tokens between looks at the state
    documents: int = 4  # the first so many, at least 2
    horizons: tuple[int, ...] = (64, 256, 1024)  # tokens over which retention is measured; empty: not at all
    retention_from: int = 512  # tokens read before retention is measured
    call_tokens: int = CALL_TOKENS  # tokens that one forward call reads

    def __post_init__(self) -> None:
        require(self.length >= 1, "length", self.length, "must be positive")
        require(1 <= self.every <= self.length, "every", self.every, f"must be 1 .. {self.length}, the length")
        require(self.documents >= 2, "documents", self.documents, "must be at least 2")
        require(all(h >= 1 for h in self.horizons), "horizons", self.horizons, "must be positive")
        require(self.retention_from >= 1, "retention_from", self.retention_from, "must be positive")
        require(self.call_tokens >= 1, "call_tokens", self.call_tokens, "must be positive")

    @property
    def reads(self) -> Reads:
        return Reads(2, self.needed)

    @property
    def needed(self) -> int:
        """Tokens that a document must have."""
        return max(self.length, self.retention_from + max(self.horizons) if self.horizons else 0)


def run(model: Model, config: Config, seed: int, *, data: Documents | None = None, progress: Progress | None = None) -> Result:
    """See the module. `data`: documents of config.needed tokens at least. Nothing is random: `seed` is not read."""
    tokens = long_documents(data, config.documents, config.needed)
    b = len(tokens)
    after = config.retention_from + max(config.horizons) if config.horizons and model.segments is None else 0
    counter = Counter(b * (config.length + after), progress)
    with evaluating(model):
        rows, grown = _looks(model, tokens[:, : config.length], config, counter)
        if after:
            piece = max(1, config.call_tokens // b)
            for horizon, kept in retention(model, tokens, config.retention_from, config.horizons, piece, counter):
                for name in (n for n in kept if n not in grown):
                    rows += _rows(name, {"horizon": horizon}, {"retention": kept[name]})
    return Result(tuple(rows))


class Look(NamedTuple):
    """One tensor at one mark."""

    name: Name
    size: Row
    statistics: list[Row]


def _looks(model: Model, tokens: Tensor, config: Config, counter: Counter) -> tuple[list[Row], set[Name]]:
    """Rows of the state at every mark, and the names of what is no fixed state: it changed its shape while the text was read."""
    b, length = tokens.shape
    marks = [1, *range(config.every, length + 1, config.every)]
    shapes: dict[Name, torch.Size] = {}
    grown: set[Name] = set()
    rows, looks = [], []
    for read in stream(model, tokens, None, spans(length, max(1, config.call_tokens // b), marks)):
        token = read.start + read.nll.shape[1]
        counter.add(read.nll.numel())
        if token not in marks:
            continue
        found = held(model, read.state)
        grown |= {h.name for h in found if not isinstance(h.value, Tensor) or shapes.setdefault(h.name, h.value.shape) != h.value.shape}
        if token % config.every == 0:
            rows.append(exact_row({"token": token}, "state_bytes", state_bytes(read.state) / b, b))
            looks += [_look(h, token, b, h.name in grown) for h in found]
    for look in looks:
        rows += [look.size] if look.name in grown or not look.statistics else look.statistics
    return rows, grown


def _look(h: Held, token: int, batch: int, grows: bool) -> Look:
    size = exact_row(_where(h.name) | {"token": token}, "bytes", h.bytes, batch)
    if grows or not isinstance(h.value, Tensor) or not h.value.is_floating_point() or h.value.numel() == 0:
        return Look(h.name, size, [])
    return Look(h.name, size, _rows(h.name, {"token": token}, describe(h.value)))


def describe(x: Tensor) -> dict[str, Array]:
    """The statistics of a state tensor (b, ...): metric -> (b, h), or (b,) where it has no heads; see the module."""
    wide = heads(x)
    flat = wide.flatten(2)
    energy = wide.square().flatten(2, -2).sum(2) if wide.ndim > 3 else flat.square()  # (b, h, channels)
    found = {
        "norm": flat.norm(dim=-1),
        "mean": flat.mean(-1),
        "variance": flat.var(-1, unbiased=False),
        "peak_share": energy.amax(-1) / energy.sum(-1).clamp(min=TINY),
        "peak_channel": energy.sum(0).argmax(-1).double().expand(len(x), -1),  # one channel, over all documents
    }
    if x.ndim == MATRIX:
        singular = torch.linalg.svdvals(wide.nan_to_num(0.0, 0.0, 0.0))
        rank = singular.sum(-1).square() / singular.square().sum(-1).clamp(min=TINY)
        found["effective_rank"] = rank.where(flat.isfinite().all(-1), torch.nan)
    return {metric: by_head(x, values) for metric, values in found.items()}


def _rows(name: Name, what: dict[str, int], found: dict[str, Array]) -> list[Row]:
    """One row a head, or one without `head` for a tensor that has none. Retention is undefined (NaN) for a
    document whose state was zero: such are left out."""
    rows = []
    for metric, values in found.items():
        places = [({}, values)] if values.ndim == 1 else [({"head": head}, values[:, head]) for head in range(values.shape[1])]
        for place, column in places:
            known = column[~np.isnan(column)] if metric == "retention" else column
            if len(known) > 0:
                rows.append(row(_where(name) | place | what, metric, mean_interval(known)))
    return rows


def _where(name: Name) -> dict[str, Any]:
    layer, block, tensor = name
    return ({} if layer is None else {"layer": layer}) | {"block": block, "tensor": tensor}
