"""How measures read: in pieces of bounded size with the state carried, so that a million tokens need no more memory than a thousand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.cross_entropy import CHUNK_ELEMENTS, logits_of
from zoo.measures.base import Progress
from zoo.model import IGNORE, Model
from zoo.tasks.base import HELD_OUT, Batch, accuracy, exact

CALL_TOKENS = 8192  # tokens that one forward call reads: enough to keep two cores busy, small enough for their caches

Generate = Callable[[int, int], Batch]  # (first example, how many) -> Batch


class Read(NamedTuple):
    """What a model said of a piece of text. b rows, t tokens, the first of them the `start`-th of the text."""

    start: int
    nll: Tensor  # (b, t) float64, nats; 0 where nothing is scored
    predicted: Tensor  # (b, t) int64, argmax over the whole vocabulary; IGNORE where nothing is scored
    state: Any  # after the piece


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
    found = []
    for stop in stops:
        found += [(a, min(a + piece, stop)) for a in range(start, stop, piece)]
        start = stop
    return found


def stream(model: Model, tokens: Tensor, labels: Tensor | None, cuts: Sequence[tuple[int, int]], state: Any = None) -> Iterator[Read]:
    """Read tokens (b, t) piece by piece, the state carried. labels (b, t): what each position must predict, IGNORE = not scored;
    None: nothing is scored."""
    device = model.embedding.weight.device
    for start, stop in cuts:
        hidden, state = model.hidden(tokens[:, start:stop].to(device), state)
        wanted = torch.full_like(tokens[:, start:stop], IGNORE) if labels is None else labels[:, start:stop]
        yield Read(start, *_score(model, hidden, wanted.to(device)), state)


def _score(model: Model, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """nll and predicted (see Read): only scored positions meet the head, some rows of logits at a time."""
    nll = torch.zeros(labels.shape, dtype=torch.float64)
    predicted = torch.full(labels.shape, IGNORE)
    scored = labels != IGNORE
    if bool(scored.any()):
        rows = max(1, CHUNK_ELEMENTS // model.config.vocab_size)
        losses, choices = [], []
        for h, wanted in zip(hidden[scored].split(rows), labels[scored].split(rows), strict=True):
            logits = logits_of(h, model.head_weight, model.config.logit_softcap)
            losses.append(F.cross_entropy(logits, wanted, reduction="none"))
            choices.append(logits.argmax(-1))
        where = scored.cpu()
        nll[where] = torch.cat(losses).double().cpu()
        predicted[where] = torch.cat(choices).cpu()
    return nll, predicted


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


def ask(model: Model, generate: Generate, start: int, count: int, length: int, call_tokens: int, counter: Counter) -> Answers:
    """Put examples HELD_OUT + start, ... of a task of `length` tokens to a model."""
    rows, piece = shape_of_call(count, length, call_tokens)
    answers = []
    for first in range(0, count, rows):
        examples = generate(HELD_OUT + start + first, min(rows, count - first))
        answers.append(_answers(model, examples, piece))
        counter.add(examples.inputs.numel())
    return Answers(*(np.concatenate(column) for column in zip(*answers, strict=True)))


def _answers(model: Model, examples: Batch, piece: int) -> Answers:
    inputs, labels, info = examples
    reads = [(r.nll, r.predicted) for r in stream(model, inputs, labels, spans(inputs.shape[1], piece))]
    nll, predicted = (torch.cat(column, 1) for column in zip(*reads, strict=True))
    asked = (labels != IGNORE).sum(1)
    old = torch.from_numpy(info["stale"]) if "stale" in info else torch.full_like(labels, IGNORE)
    stale = ((predicted == old) & (old != IGNORE)).sum(1).double() / asked
    right = accuracy(predicted, labels), exact(predicted, labels), nll.sum(1) / asked, stale
    return Answers(*(column.numpy() for column in right))
