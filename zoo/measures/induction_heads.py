"""Induction heads and n-gram heads: which heads look where the text said the same before, and what the model gains by it.

On `examples` sequences of `span` different random tokens said twice (Olsson et al., arXiv:2209.11895):

    condition  copy=first     and copy=second, on the tokens asked for in both
    metrics    loss (nats a token, t over examples)
    condition  (none)
    metrics    induction (loss of the second copy less that of the first, paired over examples: negative = it is made use of)
    condition  layer=3;block=A;head=0
    metrics    prefix_matching (weight, in the second copy, on the token after the previous occurrence of the query's token)
               prefix_held, chance_prefix_held (the same, on all keys that hold that token: where a short convolution of c taps stands
                   before a block's keys, its own and the c - 1 after it; and of even attention)
               previous_token (weight on the token before the query)
               copying (nats that the loss of the second copy rises when the head's output is zeroed; paired over examples)

On `examples` sequences of `ngram_length` tokens from an alphabet of `alphabet` ids (Akyurek et al., arXiv:2401.12973), where
short sequences return often. M_n = the keys before the query that follow an earlier occurrence of the query's last n tokens:

    condition  layer=3;block=A;head=0;n=2
    metrics    ngram (weight on M_n, over queries with one in M_n)
               ngram_excess (weight on M_n less |M_n| / |M_(n-1)| of the weight on M_(n-1); M_0 = all keys): what n tokens explain
                   that n - 1 don't. A head that spreads over M_n evenly has none from n + 1 on
    condition  n=2            and with none for the first two metrics above
    metrics    chance_ngram; chance_prefix_matching, chance_previous_token: of attention that is spread evenly over all tokens
               so far, the same for all models

Heads' intervals are t over examples. Weights are signed where a head's are (differential attention: the difference of its maps). A
model without attention, or with segment memory, has only the losses and chances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from blocks.errors import require
from zoo.config.model import ModelConfig
from zoo.measures.shared.attention_heads import Head, Seen, ablated, heads_of, held_before, watching
from zoo.measures.shared.base import Documents, Headline, MeasureConfig, Progress, Result, Row, exact_row, row
from zoo.measures.shared.statistics import Array, mean_interval, paired_difference
from zoo.measures.shared.streaming import CALL_TOKENS, Counter, evaluating, next_labels, shape_of_call, spans, stream
from zoo.model.model import Model
from zoo.tasks.shared.base import HELD_OUT, distinct, integers, uniforms

SUMMARY = "induction and n-gram heads: attention to what followed the same tokens before, and the loss of a repetition"
METRICS = (
    *("loss", "induction", "prefix_matching", "prefix_held", "previous_token", "copying", "ngram", "ngram_excess"),
    *("chance_prefix_matching", "chance_prefix_held", "chance_previous_token", "chance_ngram"),
)
HEADLINE = (Headline("induction", "nats (second copy - first)"),)
RESUMABLE = False

REPETITION = ("prefix_matching", "prefix_held", "previous_token")

Score = Callable[[Tensor, Tensor, slice, int], Tensor]  # (weights (b, h, n, t), queries (n,), examples, slot) -> sums (b, h, metrics)


@dataclass(frozen=True, kw_only=True)
class Config(MeasureConfig):
    """Sizes of the measure."""

    span: int = 32  # tokens of the sequence that is said twice
    vocab_size: int | None = None  # ids they are drawn from; null: the model's
    ngram_length: int = 128  # tokens of a sequence for n-grams
    alphabet: int = 8  # different tokens in it
    orders: tuple[int, ...] = (1, 2, 3)  # n: tokens of the n-grams that heads are judged by
    examples: int = 16  # sequences of each of the two sorts
    call_tokens: int = CALL_TOKENS  # tokens that one forward call reads

    def __post_init__(self) -> None:
        require(self.span >= 2, "span", self.span, "must be at least 2")
        require(self.alphabet >= 2, "alphabet", self.alphabet, "must be at least 2")
        require(len(self.orders) >= 1 and all(n >= 1 for n in self.orders), "orders", self.orders, "needs at least one, each positive")
        repeats = self.alphabet ** max(self.orders, default=1)
        require(self.ngram_length > max(self.orders, default=1) + 1, "ngram_length", self.ngram_length, "is too short for these orders")
        rule = f"too short: a sequence of {max(self.orders)} tokens of {self.alphabet} returns about every {repeats} tokens"
        require(4 * self.ngram_length >= repeats, "ngram_length", self.ngram_length, rule, "a smaller alphabet, or lower orders")
        require(self.examples >= 2, "examples", self.examples, "must be at least 2")
        require(self.call_tokens >= 1, "call_tokens", self.call_tokens, "must be positive")

    def check(self, model: ModelConfig) -> None:
        known = self.vocab_size or model.vocab_size
        require(known <= model.vocab_size, "vocab_size", known, f"the model has only {model.vocab_size} ids")
        require(self.span <= known, "span", self.span, f"different tokens are needed, there are {known} ids")
        require(self.alphabet <= known, "alphabet", self.alphabet, f"different tokens are needed, there are {known} ids")


def run(model: Model, config: Config, seed: int, *, data: Documents | None = None, progress: Progress | None = None) -> Result:
    """See the module. No documents are read."""
    config.check(model.config)
    twice, grams, known = _said_twice(config, model, seed), _grams(config, model, seed), heads_of(model)
    watched = bool(known)
    counter = Counter(twice.numel() * (1 + watched + len(known)) + watched * grams.numel(), progress)
    with evaluating(model):
        rows = _repetition(model, config, twice, known, counter)
        rows += _ngrams(model, config, grams, known, counter)
    return Result(tuple(rows))


def _said_twice(config: Config, model: Model, seed: int) -> Tensor:
    """(examples, 2 span)"""
    vocab = config.vocab_size or model.config.vocab_size
    key = ("induction_heads", seed, vocab, config.span)
    once = distinct(uniforms(key, HELD_OUT, config.examples, config.span), vocab)
    return torch.from_numpy(np.concatenate([once, once], 1))


def _grams(config: Config, model: Model, seed: int) -> Tensor:
    """(examples, ngram_length): each sequence has an alphabet of its own."""
    vocab = config.vocab_size or model.config.vocab_size
    key = ("ngram_heads", seed, vocab, config.ngram_length, config.alphabet)
    u = uniforms(key, HELD_OUT, config.examples, config.alphabet + config.ngram_length)
    ids = distinct(u[:, : config.alphabet], vocab)
    return torch.from_numpy(np.take_along_axis(ids, integers(u[:, config.alphabet :], config.alphabet), 1))


def _repetition(model: Model, config: Config, tokens: Tensor, known: Sequence[Head], counter: Counter) -> list[Row]:
    span = config.span
    first, second = slice(span - 1), slice(span, 2 * span - 1)  # queries that ask for tokens 1 .. span-1 of a copy

    reach = {head.slot: min(held_before(model, head), span - 1) for head in known}

    def score(weights: Tensor, queries: Tensor, _: slice, slot: int) -> Tensor:
        again, later = (queries >= span) & (queries < 2 * span - 1), queries >= 1
        matching = [weights[:, :, again, queries[again] - span + 1 + k].sum(-1) / (span - 1) for k in range(1 + reach[slot])]
        previous = weights[:, :, later, queries[later] - 1].sum(-1) / (2 * span - 1)
        return torch.stack([matching[0], torch.stack(matching).sum(0), previous], -1)

    scores = _scores(model, config, tokens, known, score, 3, counter) if known else np.zeros((0, 0, 0))
    losses = _losses(model, config, tokens, counter)
    before, after = losses[:, first].mean(1), losses[:, second].mean(1)
    even = 1 / np.arange(1, 2 * span + 1)  # the share of each key so far
    rows = [
        row({"copy": "first"}, "loss", mean_interval(before)),
        row({"copy": "second"}, "loss", mean_interval(after)),
        row({}, "induction", paired_difference(after, before)),
        exact_row({}, "chance_prefix_matching", float(even[second].mean()), len(tokens)),
        exact_row({}, "chance_previous_token", float(even[1:].mean()), len(tokens)),
    ]
    for head, of_head in zip(known, scores, strict=True):
        with ablated(model, [head]):
            without = _losses(model, config, tokens, counter)[:, second].mean(1)
        rows += [row(head.where, metric, mean_interval(of_head[:, i])) for i, metric in enumerate(REPETITION)]
        rows.append(exact_row(head.where, "chance_prefix_held", float(even[second].mean() * (1 + reach[head.slot])), len(tokens)))
        rows.append(row(head.where, "copying", paired_difference(without, after)))
    return rows


def _ngrams(model: Model, config: Config, tokens: Tensor, known: Sequence[Head], counter: Counter) -> list[Row]:
    matches = torch.stack([_matches(tokens, n) for n in range(max(config.orders) + 1)])  # (1 + orders, b, t, t)
    sizes = matches.sum(-1).double()
    asked = sizes[1:] > 0  # (orders, b, t)
    each = asked / asked.sum(-1, keepdim=True).clamp(min=1)  # the weight of a query in its sequence's mean
    narrowed = sizes[1:] / sizes[:-1].clamp(min=1)

    def score(weights: Tensor, queries: Tensor, rows: slice, _: int) -> Tensor:
        mass = torch.stack([(weights * m[rows, None, queries]).sum(-1) for m in matches])  # (1 + orders, b, h, n)
        excess = mass[1:] - narrowed[:, rows, None, queries] * mass[:-1]
        counted = each[:, rows, None, queries]
        return torch.cat([(counted * x).sum(-1) for x in (mass[1:], excess)]).permute(1, 2, 0)

    chance = (each * sizes[1:] / sizes[:1]).sum(-1).mean(-1)
    rows = [exact_row({"n": n}, "chance_ngram", float(chance[n - 1]), len(tokens)) for n in config.orders]
    scores = _scores(model, config, tokens, known, score, 2 * len(each), counter) if known else np.zeros((0, 0, 0))
    for head, of_head in zip(known, scores, strict=True):
        for n in config.orders:
            where = head.where | {"n": n}
            rows.append(row(where, "ngram", mean_interval(of_head[:, n - 1])))
            rows.append(row(where, "ngram_excess", mean_interval(of_head[:, len(each) + n - 1])))
    return rows


def _matches(tokens: Tensor, n: int) -> Tensor:
    """M_n of every query: bool (b, t, t), queries by keys. Of n = 0 all keys up to the query."""
    t = tokens.shape[1]
    order = torch.ones(t, t, dtype=torch.bool).tril(-1 if n else 0).expand(len(tokens), -1, -1)
    for k in range(n):  # the query's k-th last token stands k + 1 before the key
        same = torch.zeros_like(order)
        same[:, k:, k + 1 :] = tokens[:, : t - k, None] == tokens[:, None, : t - k - 1]
        order = order & same
    return order


def _pieces(config: Config, tokens: Tensor) -> Iterator[tuple[slice, list[tuple[int, int]]]]:
    """(rows, cuts): which sequences are read beside each other, and in which pieces."""
    beside, piece = shape_of_call(len(tokens), tokens.shape[1], config.call_tokens)
    for start in range(0, len(tokens), beside):
        yield slice(start, start + beside), spans(tokens.shape[1], piece)


def _scores(model: Model, config: Config, tokens: Tensor, known: Sequence[Head], score: Score, metrics: int, counter: Counter) -> Array:
    """(heads, examples, metrics): the sums of `score` over all queries."""
    sums = torch.zeros(len(known), *tokens.shape[:1], metrics, dtype=torch.float64)
    first = {head.slot: i for i, head in reversed(list(enumerate(known)))}
    for rows, cuts in _pieces(config, tokens):

        def show(seen: Seen, rows: slice = rows) -> None:
            text = seen.keys >= 0
            weights = seen.weights.new_zeros(*seen.weights.shape[:3], tokens.shape[1]).double()
            weights = weights.index_add(3, seen.keys[text], seen.weights[..., text].double()).cpu()
            scored = score(weights, seen.queries.cpu(), rows, seen.slot)
            sums[first[seen.slot] : first[seen.slot] + weights.shape[1], rows] += scored.transpose(0, 1)

        with watching(model, show):
            for read in stream(model, tokens[rows], None, cuts):
                counter.add(read.nll.numel())
    return sums.numpy()


def _losses(model: Model, config: Config, tokens: Tensor, counter: Counter) -> Array:
    """(examples, t): nats of the next token, 0 at the last one."""
    losses = []
    for rows, cuts in _pieces(config, tokens):
        reads = [r.nll for r in stream(model, tokens[rows], next_labels(tokens[rows]), cuts)]
        counter.add(tokens[rows].numel())
        losses.append(torch.cat(reads, 1))
    return torch.cat(losses).numpy()
