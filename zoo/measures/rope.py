"""Where rotary positions stop telling near from far, and one token from another: failure probabilities by length and base.

Of every layer with rotary positions, for its own base and for `bases` in its place (arXiv:2605.15514; zoo.measures.shared.rotary_scores):

    condition  layer=3;block=A[;head=0[;map=1]];base=10000;length=1024
    metrics    locality_lost: a key scores lower at a distance drawn below length / 2 than at one drawn from there to `length`
               order_lost: two keys that are moved from the query's side to the distance `length` change their order
    condition  layer=3;block=A;base=10000
    metrics    first_negative: the first distance at which a query expects less of a key like itself than of any other
                   (arXiv:2405.14591), inf = none up to the longest of `lengths`
               aliasing_length, stable_length: bounds of arXiv:2602.10959, for as many layers as have rotary positions

source gaussian: queries are N(0, I), the same for layers of the same sizes; the key of locality is the query itself, so that 1/2 means
that nearness is worth nothing; Wilson's interval over samples. source model: the model's own queries with keys of its own before them,
on documents, head by head (the maps of differential attention apart), whatever their real distance; Wilson's interval with
documents as clusters. A model without rotary positions, or with segment memory, has no rows. Meta attention is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from blocks import core_context, differential, gqa, landmark
from blocks.errors import one_of, require
from blocks.rope import Rope, rotate
from kernels.backends import observed
from zoo.measures.shared.attention_heads import following, heads_of
from zoo.measures.shared.base import Documents, Headline, MeasureConfig, Progress, Reads, Result, Row, exact_row, long_documents, row
from zoo.measures.shared.rotary_scores import aliasing_length, first_negative, gaussian, halves, locality_lost, order_lost, stable_length
from zoo.measures.shared.statistics import clustered_proportion, wilson
from zoo.measures.shared.streaming import CALL_TOKENS, Counter, evaluating, spans, stream
from zoo.model.model import Model
from zoo.tasks.shared.base import integers, uniforms

SUMMARY = "rotary positions: the probabilities that locality and token order are lost, by length and base"
METRICS = ("locality_lost", "order_lost", "first_negative", "aliasing_length", "stable_length")
HEADLINE: tuple[Headline, ...] = ()  # layers and bases each have their own
RESUMABLE = False
SOURCES = ("gaussian", "model")
MAPLESS = 4  # dimensions of queries that belong to one map


@dataclass(frozen=True, kw_only=True)
class Config(MeasureConfig):
    """Sizes of the measure."""

    source: str = "gaussian"  # of queries and keys: gaussian | model (its own, on documents)
    lengths: tuple[int, ...] = (256, 1024, 4096, 16384, 65536)  # distances are drawn up to these; nothing so long is read
    bases: tuple[float, ...] = ()  # to be tried in the place of each layer's own base
    samples: int = 2000  # random pairs a length; of source model: a head, length and document
    coherence: float = 0.95  # the cosine that stable_length keeps
    documents: int = 4  # source model: the first so many, at least 2
    read: int = 256  # source model: tokens of each document
    call_tokens: int = CALL_TOKENS  # tokens that one forward call reads

    def __post_init__(self) -> None:
        one_of("source", self.source, SOURCES)
        require(len(self.lengths) >= 1 and all(n >= 2 for n in self.lengths), "lengths", self.lengths, "needs at least one, each 2 or more")
        require(all(b > 1 for b in self.bases), "bases", self.bases, "must be above 1")
        require(self.samples >= 2, "samples", self.samples, "must be at least 2")
        require(0 < self.coherence < 1, "coherence", self.coherence, "is a cosine between 0 and 1")
        require(self.documents >= 2, "documents", self.documents, "must be at least 2")
        require(self.read >= 2, "read", self.read, "must be at least 2")
        require(self.call_tokens >= 1, "call_tokens", self.call_tokens, "must be positive")

    @property
    def reads(self) -> Reads | None:
        return Reads(2, self.read) if self.source == "model" else None


class Rotary(NamedTuple):
    """A layer with rotary positions. slot: see zoo.measures.shared.attention_heads.Head."""

    slot: int
    where: dict[str, Any]
    rope: Rope
    width: int  # of a head
    maps: int  # softmax maps a head


def run(model: Model, config: Config, seed: int, *, data: Documents | None = None, progress: Progress | None = None) -> Result:
    """See the module. `data`: documents of `read` tokens at least, for source model."""
    layers = _rotary_layers(model)
    tokens = long_documents(data, config.documents, config.read) if config.source == "model" else torch.zeros(0, 0)
    tried = [(layer, rope) for layer in layers for rope in _ropes(layer.rope, config.bases)]
    counter = Counter(tokens.numel() + len(tried), progress)
    own = _own_pairs(model, tokens.long(), config, layers, counter) if config.source == "model" else {}
    counter.add(0)
    rows: list[Row] = []
    for layer, rope in tried:
        rows += _bounds(layer, rope, config, len(layers))
        rows += _own(layer, rope, own[layer.slot], config, seed) if own else _gaussian(layer, rope, config, seed)
        counter.add(1)
    return Result(tuple(rows))


def _rotary_layers(model: Model) -> list[Rotary]:
    layers = []
    for head in heads_of(model):
        config = model.config.named[head.block].config
        match config:
            case (
                gqa.Config(rope=Rope()) | differential.Config(rope=Rope()) | landmark.Config(rope=Rope()) | core_context.Config(rope=Rope())
            ):
                if head.head == 0:
                    assert config.rope is not None
                    where, maps = {"layer": head.layer, "block": head.block}, 2 if isinstance(config, differential.Config) else 1
                    layers.append(Rotary(head.slot, where, config.rope, config.width(model.config.d_model), maps))
    return layers


def _ropes(rope: Rope, bases: Sequence[float]) -> list[Rope]:
    """The layer's own first."""
    return list(dict.fromkeys([rope, *(replace(rope, base=base) for base in bases)]))


def _bounds(layer: Rotary, rope: Rope, config: Config, layers: int) -> list[Row]:
    where = layer.where | {"base": float(rope.base)}
    bounds = {
        "first_negative": first_negative(rope, layer.width, max(config.lengths)),
        "aliasing_length": aliasing_length(rope),
        "stable_length": stable_length(rope, config.coherence, layers),
    }
    return [exact_row(where, metric, value, layers) for metric, value in bounds.items()]


def _gaussian(layer: Rotary, rope: Rope, config: Config, seed: int) -> list[Row]:
    rows = []
    for length in config.lengths:
        where = layer.where | {"base": float(rope.base), "length": length}
        lost = gaussian(rope, layer.width, length, config.samples, seed)
        intervals = (wilson(float(x.sum()), config.samples) for x in lost)
        rows += [row(where, metric, interval) for metric, interval in zip(("locality_lost", "order_lost"), intervals, strict=True)]
    return rows


Pairs = tuple[Tensor, Tensor]  # queries and keys before their rotation, (b, heads, read, e) each


def _own_pairs(model: Model, tokens: Tensor, config: Config, layers: Sequence[Rotary], counter: Counter) -> dict[int, Pairs]:
    """slot -> what the heads of that layer make of the text's tokens."""
    ropes = {layer.slot: layer.rope for layer in layers}
    pieces: dict[int, list[Pairs]] = {layer.slot: [] for layer in layers}

    def look(operation: str, _backend: str, _backends: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if running.call(operation, args, kwargs) is not None and running.slot in ropes:
            queries, keys = _by_head(args[0], args[1][:, -args[0].shape[1] :])
            text, back = running.queries() >= 0, -running.context.positions
            plain = (rotate(x, back, ropes[running.slot])[:, text].transpose(1, 2).cpu() for x in (queries, keys))
            pieces[running.slot].append((next(plain), next(plain)))

    piece = max(1, config.call_tokens // len(tokens))
    with evaluating(model), following(model) as running, observed(look):
        for read in stream(model, tokens, None, spans(config.read, piece)):
            counter.add(read.nll.numel())
    return {slot: (torch.cat([q for q, _ in own], 2), torch.cat([k for _, k in own], 2)) for slot, own in pieces.items()}


def _by_head(q: Tensor, k: Tensor) -> Pairs:
    """Queries (b, t, h, e) or (b, t, 2, h, e) and the keys that they meet, (b, t, heads, e) each, map by map."""
    if q.ndim == MAPLESS:
        return q, k.repeat_interleave(q.shape[2] // k.shape[2], 2)
    k = k.expand(-1, -1, 2, -1, -1) if k.shape[2] == 1 else k
    return q.flatten(2, 3), k.repeat_interleave(q.shape[3] // k.shape[3], 3).flatten(2, 3)


def _own(layer: Rotary, rope: Rope, pairs: Pairs, config: Config, seed: int) -> list[Row]:
    queries, keys = pairs
    heads = queries.shape[1]
    rows = []
    for length in config.lengths:
        lost = torch.stack([_losses(queries[:, h], keys[:, h], rope, length, config, seed) for h in range(heads)])  # (heads, 2, documents)
        for h in range(heads):
            head = {"head": h % (heads // layer.maps)} | ({"map": h // (heads // layer.maps)} if layer.maps > 1 else {})
            where = layer.where | head | {"base": float(rope.base), "length": length}
            for metric, shares in zip(("locality_lost", "order_lost"), lost[h], strict=True):
                rows.append(row(where, metric, clustered_proportion(shares.numpy(), config.samples)))
    return rows


def _losses(queries: Tensor, keys: Tensor, rope: Rope, length: int, config: Config, seed: int) -> Tensor:
    """(2, documents): the shares of random pairs of each document whose locality and order are lost. queries, keys (b, read, e)."""
    n = config.samples
    shares = []
    for document in range(len(queries)):
        u = uniforms(("rope", seed, config.read, length), document * n, n, 5)
        at = integers(u[:, 0], config.read)
        before, other = (torch.from_numpy((u[:, i] * (at + 1)).astype(int)) for i in (1, 2))
        q, k, second = queries[document, at], keys[document, before], keys[document, other]
        near, far = halves(torch.from_numpy(u[:, 3:]), length)
        lost = locality_lost(q, k, near, far, rope), order_lost(q, k, second, torch.full_like(near, length), rope)
        shares.append(torch.stack([x.mean() for x in lost]))
    return torch.stack(shares, 1)
