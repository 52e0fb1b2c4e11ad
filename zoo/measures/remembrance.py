"""Effective remembrance: how much the first tokens of a text still move the prediction at its end.

    EffRem_T(t) = d_TV(q(. | x[0:T]), q(. | x[t:T]))        d_TV: total variation, 0 .. 1

q is the model's prediction of token T, once after the whole text and once after the text without its first t tokens, read from an
empty state. It is 0 at t = 0. A model that relies on recent text keeps it near 0 until few tokens are left; one that can't forget,
or whose state has left what it knows, has it large from the first tokens on. T lies inside, at and beyond the training length (`times`
of it), t is 1, 2, 4 .. T/2 and T/2 .. T-4, T-2, T-1.

    condition  end=512;start=64      T and t
    metrics    remembrance (mean over documents, t over documents)
    condition  end=512;threshold=0.1
    metrics    forgotten_share: the share of the text that can go: t / T of the largest t on the grid up to which the mean
                   remembrance is below the threshold, 0 = of none
               context: the tokens T - t that must stay
               both with bootstrap intervals over documents

Ruiz & Gu (arXiv:2507.02782).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor

from blocks.errors import require
from kernels.cross_entropy import logits_of
from zoo.measures.shared.base import Documents, Headline, MeasureConfig, Progress, Reads, Result, Row, long_documents, row
from zoo.measures.shared.statistics import Array, bootstrap, mean_interval
from zoo.measures.shared.streaming import CALL_TOKENS, Counter, evaluating, owned, spans
from zoo.model.model import Model

SUMMARY = "effective remembrance: how far the first tokens of a text move the prediction at its end"
METRICS = ("remembrance", "forgotten_share", "context")
HEADLINE = (Headline("forgotten_share", "% of the text that can go", 100.0, key="end"),)
RESUMABLE = False


@dataclass(frozen=True, kw_only=True)
class Config(MeasureConfig):
    """Sizes of the measure."""

    train_length: int  # tokens of a training sequence
    times: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)  # ends of the text, in training lengths
    documents: int = 16  # the first so many, at least 2
    threshold: float = 0.1  # total variation below which the first tokens count as forgotten
    call_tokens: int = CALL_TOKENS  # tokens that one forward call reads

    def __post_init__(self) -> None:
        require(self.train_length >= 2, "train_length", self.train_length, "must be at least 2")
        require(len(self.times) > 0, "times", self.times, "must hold at least one")
        few = f"an end must be at 2 tokens or more, of {self.train_length} in a training sequence"
        require(all(t * self.train_length >= 2 for t in self.times), "times", self.times, few)
        require(self.documents >= 2, "documents", self.documents, "must be at least 2")
        require(0 < self.threshold < 1, "threshold", self.threshold, "must be between 0 and 1")
        require(self.call_tokens >= 1, "call_tokens", self.call_tokens, "must be positive")

    @property
    def ends(self) -> list[int]:
        """Every T, rising."""
        return sorted({round(t * self.train_length) for t in self.times})

    @property
    def reads(self) -> Reads:
        return Reads(2, self.ends[-1])


def starts(end: int) -> list[int]:
    """Every t of a text of `end` tokens, rising."""
    powers = [2**j for j in range(end.bit_length()) if 2**j <= end // 2]
    return sorted({end // 2} | set(powers) | {end - p for p in powers})


def run(model: Model, config: Config, seed: int, *, data: Documents | None = None, progress: Progress | None = None) -> Result:
    """See the module. `data`: documents of the last end's tokens at least; `seed` draws the bootstrap."""
    tokens = long_documents(data, config.documents, config.ends[-1])
    wanted: dict[int, list[int]] = {0: config.ends}  # start -> the ends of the texts that begin there
    for end in config.ends:
        for start in starts(end):
            wanted.setdefault(start, []).append(end)
    counter = Counter(len(tokens) * sum(ends[-1] - start for start, ends in wanted.items()), progress)
    moved: dict[tuple[int, int], Array] = {}
    with evaluating(model):
        whole = dict(predictions(model, tokens, 0, config.ends, config.call_tokens, counter))
        for start in sorted(set(wanted) - {0}):
            for end, predicted in predictions(model, tokens, start, wanted[start], config.call_tokens, counter):
                moved[end, start] = distance(predicted, whole[end])
    rows = [row({"end": end, "start": start}, "remembrance", mean_interval(moved[end, start])) for end, start in sorted(moved)]
    for end in config.ends:
        grid = starts(end)
        rows += _summary(config, end, np.array(grid), np.stack([moved[end, start] for start in grid], 1), seed)
    return Result(tuple(rows))


def predictions(
    model: Model, tokens: Tensor, start: int, ends: list[int], call_tokens: int, counter: Counter
) -> Iterator[tuple[int, Tensor]]:
    """(end, q(. | tokens[start:end]) (b, vocab) float64, on the CPU) for each end, rising, read from an empty state."""
    b, state = len(tokens), None
    for first, stop in spans(ends[-1], max(1, call_tokens // b), ends, start):
        hidden, state = model.hidden(tokens[:, first:stop].to(model.embedding.weight.device), state)
        state = owned(state)
        counter.add(b * (stop - first))
        if stop in ends:
            yield stop, logits_of(hidden[:, -1], model.head_weight, model.config.logit_softcap).double().softmax(-1).cpu()


def distance(p: Tensor, q: Tensor) -> Array:
    """Total variation of distributions (b, vocab): (b,)."""
    return ((p - q).abs().sum(-1) / 2).numpy()


def _summary(config: Config, end: int, grid: np.ndarray, values: Array, seed: int) -> list[Row]:
    """values (documents, starts)."""
    where = {"end": end, "threshold": float(config.threshold)}
    gone = bootstrap(values, partial(_forgotten, grid=grid, threshold=config.threshold), seed)
    share = gone._replace(value=gone.value / end, low=gone.low / end, high=gone.high / end)
    context = gone._replace(value=end - gone.value, low=end - gone.high, high=end - gone.low)
    return [row(where, "forgotten_share", share), row(where, "context", context)]


def _forgotten(values: Array, *, grid: np.ndarray, threshold: float) -> Array:
    """values (r, documents, starts) -> (r,): the last start before the first whose mean is not below the threshold; 0 = none."""
    below = np.logical_and.accumulate(values.mean(1) < threshold, axis=-1).sum(-1)
    return np.concatenate([[0.0], grid])[below]
