"""What the state looks like while it is read into, and how long it keeps what it holds: by layer, tensor and head.

Generic over blocks: every tensor of every state. A matrix state (b, h, k, v) is taken head by head, any other tensor as one. Of
what grows with the text (an attention cache) only the size is reported. Channels are the last axis (values, in a matrix state). All
conditions begin with `prompt=...` unless the prompt is `documents` (zoo.measures.shared.prompts).

    condition  token=4096
    metrics    state_bytes (of one sequence, all layers)
    condition  layer=3;block=M;tensor=ssm[;head=0];token=4096     after so many tokens; mean over documents, t over documents
    metrics    norm (Frobenius), mean, variance, max (of the entries, max of the absolute ones), peak_share (the largest channel's
               share of the energy), peak_channel (which), cosine (with the state at the look before)
               matrix states, of the singular values s: effective_rank ((sum s)^2 / sum s^2, 1 .. min(k, v)), utilisation (that /
               min(k, v)), stable_rank (sum s^2 / max s^2), spectrum_entropy (of s^2 / sum s^2, 1 = all alike, 0 = one)
               for a cache: bytes
    condition  layer=3;block=M;tensor=ssm[;head=0];horizon=256
    metrics    retention (zoo.measures.shared.retention)

With a training length:

    condition  block=M;tensor=ssm;horizon=256;threshold=0.5       horizon: the training length; threshold 0.5 and 0.997
    metrics    non_forgetting: share of the heads of all layers whose retention is above the threshold
    condition  layer=3;block=M;tensor=ssm[;head=0];train_length=256;length=4096     the text's end against the training length
    metrics    variance_growth (geometric mean), mean_over_std (|mean| / standard deviation of the entries at the end),
               exploding_share (of the head's channels)
    condition  layer=3;block=M;tensor=ssm[;head=0];channel=17;train_length=256;length=4096      the channels that grew most
    metrics    growth (energy, geometric mean), exploding (1: the lower end of growth's interval is above `explodes`, and every
               document ends above all that this channel held at the looks of channel_rms inside the training length; or 0)
    condition  train_length=256;length=4096
    metrics    exploding_heads (with an exploding channel), exploding_channels: how many
    condition  layer=3;block=M;tensor=ssm[;head=0];channel=17;token=256      the head with the channel that grew most, all its
    metrics    channel_rms                                                   channels, at tokens about even in their logarithm

What goes wrong first when a state collapses is the norm of a few heads and channels, with a mean near zero and a variance that grows
(Stuffed Mamba, arXiv:2410.07145), in heads with a retention above .997 over the whole training length. Under segment memory
(tokens.memory) layers are emptied at every segment: only the memory is looked at, and there is no retention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from blocks.errors import require
from blocks.state import state_bytes
from zoo.measures.shared.base import Documents, Headline, Progress, Result, ResumeStore, Row, exact_row, row
from zoo.measures.shared.exploding_channels import Channels, channels, explosion_rows, explosions, map_rows, worst_head
from zoo.measures.shared.prompts import PromptConfig
from zoo.measures.shared.retention import retention
from zoo.measures.shared.state_statistics import cosine, describe, energy
from zoo.measures.shared.state_tensors import Held, Name, held, place
from zoo.measures.shared.statistics import Array
from zoo.measures.shared.streaming import CALL_TOKENS, Counter, evaluating, resumed, spans, stream
from zoo.model.model import Model

SUMMARY = "the state by layer and head: norm, variance, exploding channels, rank and spectrum, retention"
METRICS = (
    *("state_bytes", "bytes", "norm", "mean", "variance", "max", "peak_share", "peak_channel", "cosine"),
    *("effective_rank", "utilisation", "stable_rank", "spectrum_entropy", "retention", "non_forgetting"),
    *("variance_growth", "mean_over_std", "exploding_share", "growth", "exploding"),
    *("exploding_heads", "exploding_channels", "channel_rms"),
)
HEADLINE = (
    Headline("state_bytes", "bytes", without=("token",)),  # one at every look: on the terminal alone
    Headline("exploding_heads", "exploding heads"),
)
RESUMABLE = True
NON_FORGETTING = (0.5, 0.997)  # retention over the training length


@dataclass(frozen=True, kw_only=True)
class Config(PromptConfig):
    """Sizes of the measure."""

    length: int = 4096  # tokens of each text that are read
    every: int = 512  # tokens between looks at the state
    documents: int = 4  # texts, at least 2
    horizons: tuple[int, ...] = (64, 256, 1024)  # tokens over which retention is measured; empty: not at all
    retention_from: int = 512  # tokens read before retention is measured
    train_length: int | None = None  # tokens of a training sequence; null: growth and forgetting are not judged
    explodes: float = 10.0  # growth of a channel's energy from the training length to the end
    channels: int = 4  # of each head that are named
    call_tokens: int = CALL_TOKENS  # tokens that one forward call reads

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.length >= 1, "length", self.length, "must be positive")
        require(1 <= self.every <= self.length, "every", self.every, f"must be 1 .. {self.length}, the length")
        require(all(h >= 1 for h in self.horizons), "horizons", self.horizons, "must be positive")
        require(self.retention_from >= 1, "retention_from", self.retention_from, "must be positive")
        require(self.train_length is None or self.train_length >= 1, "train_length", self.train_length, "must be positive")
        require(self.explodes >= 1, "explodes", self.explodes, "must be 1 or more")
        require(self.channels >= 1, "channels", self.channels, "must be positive")
        require(self.call_tokens >= 1, "call_tokens", self.call_tokens, "must be positive")

    @property
    def all_horizons(self) -> tuple[int, ...]:
        """With the training length, rising."""
        judged = self.horizons and self.train_length is not None
        return tuple(sorted({*self.horizons, self.train_length} if judged else set(self.horizons)))  # type: ignore[arg-type]

    @property
    def needed(self) -> int:
        """Tokens that a text must have."""
        return max(self.length, self.retention_from + max(self.all_horizons) if self.horizons else 0)

    @property
    def looks(self) -> list[int]:
        """The tokens after which the state is described."""
        return list(range(self.every, self.length + 1, self.every))

    @property
    def map(self) -> list[int]:
        """The tokens after which channels are: some looks about even in their logarithm, the training length and the end."""
        if self.train_length is None or self.train_length >= self.length:
            return []
        last = self.length // self.every
        even = {round(2 ** (j / 2)) for j in range(2 * last.bit_length())}
        return sorted({self.every * m for m in even if m <= last} | {self.train_length, self.length})


def run(
    model: Model,
    config: Config,
    seed: int,
    *,
    data: Documents | None = None,
    progress: Progress | None = None,
    keep: ResumeStore | None = None,
) -> Result:
    """See the module. `data`: documents as config.reads says. Nothing is random: `seed` is not read."""
    tokens = config.texts(data)
    b = len(tokens)
    after = config.retention_from + max(config.all_horizons) if config.horizons and model.segments is None else 0
    counter = Counter(b * (config.length + after), progress)
    with evaluating(model):
        sofar = _read(model, tokens[:, : config.length], config, counter, keep)
        rows = _look_rows(sofar, config, b) + _growth_rows(sofar, config)
        if after:
            piece = max(1, config.call_tokens // b)
            for horizon, kept in retention(model, tokens, config.retention_from, config.all_horizons, piece, counter):
                fixed = {name: left for name, left in kept.items() if name not in sofar.grown}
                for name, left in fixed.items():
                    rows += _rows(config, name, {"horizon": horizon}, {"retention": left})
                if horizon == config.train_length:
                    rows += _forgetting(config, horizon, fixed)
    return Result(tuple(rows))


class Look(NamedTuple):
    """One tensor after some tokens, or (without a name) the whole state."""

    name: Name | None
    token: int
    bytes: float  # of one text
    metrics: tuple[str, ...]
    values: Tensor  # (metrics, b[, h]) float64


class SoFar(NamedTuple):
    """What has been read: enough to go on."""

    pieces: int = 0
    state: Any = None
    before: tuple[tuple[Name, Tensor], ...] = ()  # the state at the last look
    shapes: tuple[tuple[Name, tuple[int, ...]], ...] = ()
    grown: tuple[Name, ...] = ()  # no fixed state: its shape changed while the text was read
    looks: tuple[Look, ...] = ()
    map: tuple[tuple[int, list[Channels]], ...] = ()


def _read(model: Model, tokens: Tensor, config: Config, counter: Counter, keep: ResumeStore | None) -> SoFar:
    """Read the texts beside each other and look at the state at every mark."""
    b, length = tokens.shape
    marks = {1, *config.looks, *config.map}
    cuts = spans(length, max(1, config.call_tokens // b), marks)
    sofar = (None if keep is None else keep.load()) or SoFar()
    counter.add(b * sum(stop - start for start, stop in cuts[: sofar.pieces]))
    for read in stream(model, tokens, None, cuts[sofar.pieces :], resumed(model, sofar.state)):
        token = read.start + read.nll.shape[1]
        sofar = sofar._replace(pieces=sofar.pieces + 1, state=read.state)
        if token in marks:
            sofar = _looked(sofar, held(model, read.state), token, config, b)
        if keep is not None:
            keep.save(sofar)
        counter.add(read.nll.numel())
    return sofar


def _looked(sofar: SoFar, tensors: list[Held], token: int, config: Config, batch: int) -> SoFar:
    """With what is seen after `token` tokens."""
    shapes, grown, fixed = dict(sofar.shapes), set(sofar.grown), []
    for h in tensors:
        shape = tuple(h.value.shape) if isinstance(h.value, Tensor) else None
        if shape is None or shapes.setdefault(h.name, shape) != shape:
            grown.add(h.name)
        elif isinstance(h.value, Tensor) and h.value.is_floating_point() and h.value.numel() > 0 and h.name not in grown:
            fixed.append(h)
    sofar = sofar._replace(shapes=tuple(shapes.items()), grown=tuple(sorted(grown, key=str)))
    if token % config.every == 0:
        whole = Look(None, token, state_bytes(sofar.state) / batch, (), torch.empty(0))
        before, known = dict(sofar.before), {h.name for h in fixed}
        looks = [_look(h, token, before if h.name in known else None) for h in tensors]
        now = tuple((h.name, h.value) for h in fixed if isinstance(h.value, Tensor))
        sofar = sofar._replace(looks=(*sofar.looks, whole, *looks), before=now)
    if token in config.map:
        sofar = sofar._replace(map=(*sofar.map, (token, [channels(h, energy(h.value)) for h in fixed if isinstance(h.value, Tensor)])))
    return sofar


def _look(h: Held, token: int, before: dict[Name, Tensor] | None) -> Look:
    """before: the fixed states at the look before; None: this is none."""
    if before is None or not isinstance(h.value, Tensor):
        return Look(h.name, token, h.bytes, (), torch.empty(0))
    statistics = describe(h.value)
    if h.name in before:
        statistics["cosine"] = cosine(h.value, before[h.name])
    return Look(h.name, token, h.bytes, tuple(statistics), torch.from_numpy(np.stack(list(statistics.values()))))


def _look_rows(sofar: SoFar, config: Config, texts: int) -> list[Row]:
    rows = []
    for name, token, size, metrics, values in sofar.looks:
        if name is not None and metrics and name not in sofar.grown:
            rows += _rows(config, name, {"token": token}, dict(zip(metrics, values.numpy(), strict=True)))
        else:
            here = {} if name is None else place(name)
            rows.append(exact_row(config.where | here | {"token": token}, "bytes" if here else "state_bytes", size, texts))
    return rows


def _growth_rows(sofar: SoFar, config: Config) -> list[Row]:
    """What grew from the training length to the end."""
    looks = {token: [c for c in grown_heads if c.name not in sofar.grown] for token, grown_heads in sofar.map}
    if config.train_length is None or not looks:
        return []
    inside = [grown_heads for token, grown_heads in looks.items() if token <= config.train_length]
    grown_heads = explosions(inside, looks[config.length], config.interval)
    span = {"train_length": config.train_length, "length": config.length}
    rows = explosion_rows(grown_heads, config.where, span, config.explodes, config.channels)
    return rows + map_rows(worst_head(grown_heads), looks, config.where, config.interval) if grown_heads else rows


def _forgetting(config: Config, horizon: int, kept: dict[Name, Array]) -> list[Row]:
    """Share of the heads that keep more than they should of a state over the training length."""
    heads: dict[tuple[str, str], list[Array]] = {}
    for (_, block, tensor), left in kept.items():
        heads.setdefault((block, tensor), []).append(left.reshape(len(left), -1))
    rows = []
    for (block, tensor), columns in heads.items():
        left = np.concatenate(columns, 1)
        left = left[~np.isnan(left).any(1)]  # a document whose state was zero says nothing of what is kept
        for threshold in NON_FORGETTING if len(left) else ():
            where = config.where | {"block": block, "tensor": tensor, "horizon": horizon, "threshold": threshold}
            rows.append(row(where, "non_forgetting", config.interval((left > threshold).mean(1))))
    return rows


def _rows(config: Config, name: Name, what: dict[str, int], metrics: dict[str, Array]) -> list[Row]:
    """One row a head, or one without `head` for a tensor that has none. Retention is undefined (NaN) for a
    document whose state was zero: such are left out."""
    rows = []
    for metric, values in metrics.items():
        places = [({}, values)] if values.ndim == 1 else [({"head": head}, values[:, head]) for head in range(values.shape[1])]
        for head, column in places:
            known = column[~np.isnan(column)] if metric == "retention" else column
            if len(known) > 0:
                rows.append(row(config.where | place(name) | head | what, metric, config.interval(known)))
    return rows
