"""How measures read: in pieces of bounded size with the state carried, so that a million tokens need no more memory than a thousand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.state import map_state
from kernels.cross_entropy import CHUNK_ELEMENTS, logits_of
from zoo.measures.shared.base import Progress
from zoo.model.model import IGNORE, Model
from zoo.tasks.shared.base import HELD_OUT, Batch

CALL_TOKENS = 8192  # tokens that one forward call reads: enough to keep two cores busy, small enough for their caches

Generate = Callable[[int, int], Batch]  # (first example, how many) -> Batch


class Read(NamedTuple):
    """What a model said of a piece of text. b rows, t tokens, the first of them the `start`-th of the text."""

    start: int
    nll: Tensor  # (b, t) float64, nats; 0 where nothing is scored
    predicted: Tensor  # (b, t) int64, argmax over the whole vocabulary; IGNORE where nothing is scored
    state: Any  # after the piece
    hidden: Tensor  # (b, t, d) what the head reads


Judged = Callable[[Read], dict[str, Tensor]]  # a piece's scores by name, (b, t) each
Judge = Callable[[int, int], Judged]  # of examples (first, how many)


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """No dropout, no gradients; the model's mode is put back."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def spans(length: int, piece: int, marks: Iterable[int] = (), start: int = 0) -> list[tuple[int, int]]:
    """start .. length cut into pieces of at most `piece`, with a cut at every mark."""
    stops = sorted({m for m in marks if start < m < length} | {length})
    cuts = []
    for stop in stops:
        cuts += [(a, min(a + piece, stop)) for a in range(start, stop, piece)]
        start = stop
    return cuts


def stream(model: Model, tokens: Tensor, labels: Tensor | None, cuts: Sequence[tuple[int, int]], state: Any = None) -> Iterator[Read]:
    """Read tokens (b, t) piece by piece, the state carried. labels (b, t): what each position must predict, IGNORE = not scored;
    None: nothing is scored.

    Every piece starts from a state in storage of its own, so that one which was saved and read back gives the same bits, and no
    state keeps a piece's activations alive.
    """
    device = model.embedding.weight.device
    for start, stop in cuts:
        hidden, state = model.hidden(tokens[:, start:stop].to(device), state)
        state = owned(state)
        wanted = torch.full_like(tokens[:, start:stop], IGNORE) if labels is None else labels[:, start:stop]
        yield Read(start, *_score(model, hidden, wanted.to(device)), state, hidden)


def owned(state: Any) -> Any:
    """A copy in contiguous storage of its own."""
    return map_state(lambda x: x.clone(memory_format=torch.contiguous_format), state)


def resumed(model: Model, state: Any) -> Any:
    """A state that was saved, where the model is."""
    device = model.embedding.weight.device
    return owned(map_state(lambda x: x.to(device), state))


def _score(model: Model, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """nll and predicted (see Read): only scored positions meet the head, some rows of logits at a time."""
    nll = torch.zeros(labels.shape, dtype=torch.float64)
    predicted = torch.full(labels.shape, IGNORE)
    scored = labels != IGNORE
    if bool(scored.any()):
        losses, choices, wanted = [], [], labels[scored]
        for logits in logits_at(model, hidden, scored):
            here, wanted = wanted[: len(logits)], wanted[len(logits) :]
            losses.append(F.cross_entropy(logits, here, reduction="none"))
            choices.append(logits.argmax(-1))
        where = scored.cpu()
        nll[where] = torch.cat(losses).double().cpu()
        predicted[where] = torch.cat(choices).cpu()
    return nll, predicted


def logits_at(model: Model, hidden: Tensor, where: Tensor) -> Iterator[Tensor]:
    """The logits (n, vocabulary) of the positions `where` (b, t) bool of hidden (b, t, d), in their order, some rows at a time."""
    rows = max(1, CHUNK_ELEMENTS // model.config.vocab_size)
    for h in hidden[where].split(rows):
        yield logits_of(h, model.head_weight, model.config.logit_softcap)


def next_labels(tokens: Tensor) -> Tensor:
    """(b, t): the next token, IGNORE at the end."""
    return F.pad(tokens[:, 1:], (0, 1), value=IGNORE)


def shape_of_call(rows: int, length: int, call_tokens: int) -> tuple[int, int]:
    """(rows, piece): how many of `rows` texts of `length` tokens are read beside each other, and how many tokens of each at once."""
    beside = min(rows, max(1, call_tokens // length))
    return beside, max(1, min(length, call_tokens // beside))


class Counter:
    """Tokens read so far, told to whoever watches."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def add(self, tokens: int) -> None:
        self.done += tokens
        if self.progress is not None:
            self.progress(self.done, self.total)


class Answers(NamedTuple):
    """How each of n examples of a task was answered."""

    accuracy: np.ndarray  # (n,) share of its scored positions that are right
    exact: np.ndarray  # (n,) bool: all of them
    nll: np.ndarray  # (n,) mean over them, nats
    stale: np.ndarray  # (n,) share of its scored positions answered with the overwritten value; 0 where nothing is overwritten


class Asked(NamedTuple):
    """Every answer to n examples of a task. s answers, example by example."""

    examples: int  # n
    example: np.ndarray  # (s,) int64, from 0
    scores: dict[str, np.ndarray]  # (s,) float64 each: right (0 or 1), nll (nats), stale (0 or 1), and what a judge says
    info: dict[str, np.ndarray]  # (s,) each: what the task says of an answer

    def mean(self, score: str, where: np.ndarray | None = None) -> np.ndarray:
        """(m,) float64: the mean score of each example over its answers `where` (s,) bool (None: all), examples without any left out."""
        chosen = slice(None) if where is None else where
        counts = np.bincount(self.example[chosen], minlength=self.examples)
        sums = np.bincount(self.example[chosen], weights=self.scores[score][chosen], minlength=self.examples)
        means: np.ndarray = sums[counts > 0] / counts[counts > 0]
        return means

    def answers(self, where: np.ndarray | None = None) -> Answers:
        """The same by example."""
        right = self.mean("right", where)
        return Answers(right, right == 1, self.mean("nll", where), self.mean("stale", where))


def ask(model: Model, generate: Generate, start: int, count: int, length: int, call_tokens: int, counter: Counter) -> Answers:
    """Put examples HELD_OUT + start, ... of a task of `length` tokens to a model."""
    return ask_each(model, generate, start, count, length, call_tokens, counter).answers()


def ask_each(
    model: Model,
    generate: Generate,
    start: int,
    count: int,
    length: int,
    call_tokens: int,
    counter: Counter,
    *,
    keys: Sequence[str] = (),
    judge: Judge | None = None,
) -> Asked:
    """The same, answer by answer. keys: what is kept of the task's info, (b,) or (b, t) there."""
    rows, piece = shape_of_call(count, length, call_tokens)
    examples, scores, infos = [], [], []
    for first in range(0, count, rows):
        numbers = HELD_OUT + start + first, min(rows, count - first)
        batch = generate(*numbers)
        example, at = np.nonzero((batch.labels != IGNORE).numpy())
        examples.append(first + example)
        said = _scores(model, batch, piece, None if judge is None else judge(*numbers))
        scores.append({name: score[example, at] for name, score in said.items()})
        values = {key: batch.info[key] for key in keys}
        infos.append({key: value[example] if value.ndim == 1 else value[example, at] for key, value in values.items()})
        counter.add(batch.inputs.numel())
    return Asked(count, np.concatenate(examples), _together(scores), _together(infos))


def _scores(model: Model, batch: Batch, piece: int, judge: Judged | None) -> dict[str, np.ndarray]:
    """(b, t) float64 of each score, 0 where nothing is asked."""
    pieces = []
    for r in stream(model, batch.inputs, batch.labels, spans(batch.inputs.shape[1], piece)):
        labels = batch.labels[:, r.start : r.start + r.nll.shape[1]]
        old = torch.from_numpy(batch.info["stale"])[:, r.start :][:, : labels.shape[1]] if "stale" in batch.info else IGNORE
        right, stale = ((r.predicted == wanted) & (labels != IGNORE) for wanted in (labels, old))
        own = {} if judge is None else judge(r)
        pieces.append({name: score.double().numpy() for name, score in {"right": right, "nll": r.nll, "stale": stale, **own}.items()})
    return _together(pieces, 1)


def _together(parts: list[dict[str, np.ndarray]], axis: int = 0) -> dict[str, np.ndarray]:
    return {key: np.concatenate([part[key] for part in parts], axis) for key in parts[0]}
