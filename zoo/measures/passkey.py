"""Passkey retrieval by length and depth: how long, and from how deep in filler, a model still finds one thing it was told.

Teacher-forced: an example is right if the argmax over the whole vocabulary is right at every position of the answer.
Depth 0 is the start of the filler (farthest from the question), 1 its end. Examples of different conditions are different.

    condition  length=1024;depth=0.5    and, over all depths, length=1024
    metrics    accuracy (exact match, Wilson); nll (nats an answer token, t over examples); chance
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from blocks.errors import ConfigError, one_of, require
from zoo.config.model import ModelConfig
from zoo.measures.shared.base import Documents, Headline, MeasureConfig, Progress, Reads, Result, Row, exact_row, row
from zoo.measures.shared.statistics import mean_interval, wilson
from zoo.measures.shared.streaming import CALL_TOKENS, Answers, Counter, ask, evaluating
from zoo.model.model import Model
from zoo.tasks import passkey, passkey_tokens
from zoo.tasks.shared.base import Batch

SUMMARY = "passkey retrieval: exact match by length and depth, in bytes or in the tokens of mqar"
METRICS = ("accuracy", "nll", "chance")
HEADLINE = (Headline("accuracy", "%", 100.0, key="length", without=("depth",), title="{length} tokens".format_map),)
RESUMABLE = False
FORMS = ("bytes", "tokens")
BYTES = 256

Draw = Callable[[int, int, int], Batch]  # (seed, first example, how many)
Task = passkey.Config | passkey_tokens.Config


@dataclass(frozen=True, kw_only=True)
class Config(MeasureConfig):
    """Sizes of the measure."""

    form: str = "bytes"  # bytes (text, for byte models) | tokens (one pair of mqar, for models trained on that)
    lengths: tuple[int, ...] = (256, 512, 1024)  # tokens that are read
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)  # share of the filler before the passkey
    digits: int = 5  # of the number, in bytes
    filler: str | None = None  # bytes: filler | text (from the documents); tokens: noise | zero; null: the first
    vocab_size: int | None = None  # of the token form; null: the model's
    examples: int = 16  # held-out examples of each length and depth
    call_tokens: int = CALL_TOKENS  # tokens that one forward call reads

    def __post_init__(self) -> None:
        one_of("form", self.form, FORMS)
        require(len(self.lengths) >= 1, "lengths", self.lengths, "needs at least one")
        require(len(self.depths) >= 1, "depths", self.depths, "needs at least one")
        require(self.examples >= 2, "examples", self.examples, "must be at least 2")
        require(self.call_tokens >= 1, "call_tokens", self.call_tokens, "must be positive")

    @property
    def reads(self) -> Reads | None:
        return Reads(1, 2) if self.filler == "text" else None

    def check(self, model: ModelConfig) -> None:
        self.tasks(model.vocab_size)

    def tasks(self, known: int) -> list[Task]:
        """The task of each length and depth, length by length, for a model of `known` ids. Raises ConfigError where it is impossible."""
        grid = [(length, depth) for length in self.lengths for depth in self.depths]
        if self.form == "bytes":
            require(known >= BYTES, "form", self.form, f"needs a model of bytes, this one has {known} ids", "form: tokens")
            haystack = self.filler or "filler"
            return [passkey.Config(length=length, digits=self.digits, depth=depth, haystack=haystack) for length, depth in grid]
        vocab = self.vocab_size or known
        require(vocab <= known, "vocab_size", vocab, f"the model has only {known} ids")
        filler = self.filler or "noise"
        return [passkey_tokens.Config(vocab_size=vocab, length=length, depth=depth, filler=filler) for length, depth in grid]


def run(model: Model, config: Config, seed: int, *, data: Documents | None = None, progress: Progress | None = None) -> Result:
    """See the module. `data` is read only for `filler: text`: its bytes are the haystack."""
    grid = [(length, depth) for length in config.lengths for depth in config.depths]
    tasks = [drawn(task, data) for task in config.tasks(model.config.vocab_size)]
    counter = Counter(sum(length for length, _ in grid) * config.examples, progress)
    answers: dict[tuple[int, float], Answers] = {}
    with evaluating(model):
        for index, ((length, depth), (generate, _)) in enumerate(zip(grid, tasks, strict=True)):
            examples = partial(generate, seed)
            first = index % len(config.depths) * config.examples  # other numbers at every depth
            answers[length, depth] = ask(model, examples, first, config.examples, length, config.call_tokens, counter)
    chance = tasks[0][1]
    rows = [r for (length, depth), found in answers.items() for r in _rows({"length": length, "depth": float(depth)}, found, chance)]
    for length in config.lengths:
        pooled = (np.concatenate(column) for column in zip(*(answers[length, depth] for depth in config.depths), strict=True))
        rows += _rows({"length": length}, Answers(*pooled), chance)
    return Result(tuple(rows))


def drawn(task: Task, data: Documents | None) -> tuple[Draw, float]:
    """(generate(seed, start, count), chance level) of one condition."""
    if isinstance(task, passkey_tokens.Config):
        return lambda seed, start, count: passkey_tokens.generate(task, seed, start, count), passkey_tokens.chance(task)
    text = _text(data) if task.haystack == "text" else None
    return lambda seed, start, count: passkey.generate(task, seed, start, count, text), passkey.chance(task)


def _text(data: Documents | None) -> bytes:
    if not data:
        raise ConfigError("filler", "text", "needs documents", "filler: filler")
    joined = torch.cat(list(data))
    require(bool((joined < BYTES).all()), "filler", "text", "needs documents of bytes")
    return bytes(joined.tolist())


def _rows(where: dict[str, Any], answers: Answers, chance: float) -> list[Row]:
    n = len(answers.exact)
    return [
        row(where, "accuracy", wilson(int(answers.exact.sum()), n)),
        row(where, "nll", mean_interval(answers.nll)),
        exact_row(where, "chance", chance, n),
    ]
