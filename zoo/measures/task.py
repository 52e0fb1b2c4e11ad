"""Accuracy on any task of zoo.tasks, by condition and by what the task says of each answer, and the length up to which it holds.

The conditions are `conditions` (changes to the task's Config) crossed with the axes of `grid`. Accuracy = argmax over the whole
vocabulary at the labelled positions of held-out examples: the mean over examples of the share that is right, with the interval of
zoo.measures.shared.statistics.clustered_proportion. Tasks with real text read it from the documents, see zoo.tasks.shared.real_text.

    condition  length=256;pairs=8     what differs among the conditions, the length always
    metrics    accuracy; exact (share of examples without any error, Wilson); nll (nats an answer, t over examples); chance
               in_context_languages also: tvd, legal, best (zoo.measures.shared.languages)
    condition  length=256;pairs=8;distance=32      answers of one bin of a key of `by`, named by its lower edge
    metrics    accuracy, nll, answers (how many)
    condition  pairs=8                what the groups of conditions that differ in `along` alone have in common
    metrics    effective_length: the largest length such that the score is at `threshold` or above there and at all shorter ones, 0 where
               there is none; bootstrap over examples. censored: 1 where the longest still is: the value is a lower bound
    condition  (none)                 mean_accuracy, over all conditions

Bins are the same whatever was drawn: whole numbers below 8 one by one, then octaves (8, 16, 32, ...); shares (0 to 1) in tenths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from blocks.errors import one_of, require
from zoo.config.model import ModelConfig
from zoo.config.schema import parse
from zoo.measures.shared import languages
from zoo.measures.shared.base import Documents, Headline, MeasureConfig, Progress, Reads, Result, Row, exact_row, row
from zoo.measures.shared.condition import Condition
from zoo.measures.shared.statistics import Array, Interval, bootstrap, clustered_proportion, mean_interval, wilson
from zoo.measures.shared.streaming import CALL_TOKENS, Answers, Asked, Counter, ask_each, evaluating
from zoo.model.model import Model
from zoo.tasks import HELD_OUT, TASKS
from zoo.tasks.shared.real_text import drawing, needs

SUMMARY = "any task: accuracy by condition, by distance, depth or hops of an answer, and the effective length"
METRICS = ("accuracy", "exact", "nll", "chance", "answers", *languages.SCORES, "effective_*", "censored", "mean_accuracy")
HEADLINE = (Headline("mean_accuracy", "%", 100.0), Headline("effective_length", "effective length (tokens)", without=("depth",)))
RESUMABLE = False
SCORES = ("accuracy", "exact")
EXACT_BELOW = 8  # whole numbers that are bins of their own
TENTHS = 10
JUDGES = {"in_context_languages": languages}  # tasks that are scored in their own way, too


@dataclass(frozen=True, kw_only=True)
class Config(MeasureConfig):
    """Sizes of the measure."""

    task: str  # a name of zoo.tasks
    conditions: tuple[Any, ...] = ({},)  # changes to the task's Config, such as [{length: 256, pairs: 8}]
    grid: dict[str, Any] | None = None  # axes that the conditions are crossed with, such as {length: [256, 512], pairs: [8, 16]}
    by: tuple[str, ...] = ()  # what answers are split by: keys of the task's info (distance, depth, hops, ...)
    along: str = "length"  # the field whose effective size is found
    score: str = "accuracy"  # that must reach the threshold: accuracy | exact
    threshold: float = 0.856  # of the effective size; 0.856 is RULER's (arXiv:2404.06654)
    vocab_size: int | None = None  # of the task, where it has one; null: the model's
    examples: int = 128  # held-out examples of each condition
    call_tokens: int = CALL_TOKENS  # tokens that one forward call reads

    def __post_init__(self) -> None:
        one_of("task", self.task, tuple(TASKS))
        one_of("score", self.score, SCORES)
        known = [f.name for f in fields(TASKS[self.task].Config)]
        require(len(self.conditions) >= 1, "conditions", self.conditions, "needs at least one", "[{}] is the task as it is")
        for i, changes in enumerate(self.conditions):
            rule = f"must be changes to {self.task}, such as {{length: 64}}"
            require(isinstance(changes, Mapping), f"conditions[{i}]", changes, rule)
        for key, values in (self.grid or {}).items():
            require(key in known, f"grid.{key}", None, f"{self.task} has no such key", f"Keys: {', '.join(known)}")
            require(isinstance(values, (list, tuple)) and len(values) > 0, f"grid.{key}", values, "must be a list of values")
        require(self.along in known, "along", self.along, f"{self.task} has no such key", f"Keys: {', '.join(known)}")
        require(0 < self.threshold <= 1, "threshold", self.threshold, "is an accuracy, above 0 and up to 1")
        require(self.examples >= 2, "examples", self.examples, "must be at least 2")
        require(self.call_tokens >= 1, "call_tokens", self.call_tokens, "must be positive")

    @property
    def reads(self) -> Reads | None:
        task = TASKS[self.task].Config
        real = [needs(parse(task, one, "conditions")) for one in self.changes if "text" in one.values()]
        wanted = [need for need in real if need is not None]
        return Reads(max(n.documents for n in wanted), max(n.bytes for n in wanted)) if wanted else None

    def check(self, model: ModelConfig) -> None:
        for case in self.cases(model.vocab_size):
            text = needs(case.config)
            documents = None if text is None else [np.full(text.bytes, ord("."))] * text.documents
            info = drawing(self.task, case.config, documents)(0, HELD_OUT, 1).info
            of_answers = tuple(key for key, value in info.items() if value.ndim == 1 or value.shape[1] == case.config.length)
            for key in self.by:
                one_of("by", key, of_answers)
                require(key not in case.where, "by", key, "is what the conditions differ in", "another key")

    @property
    def changes(self) -> list[dict[str, Any]]:
        """What each condition changes in the task's Config."""
        axes = [[(key, value) for value in values] for key, values in (self.grid or {}).items()]
        return [{**one, **dict(more)} for one in self.conditions for more in product(*axes)]

    def cases(self, known: int) -> list[Case]:
        """The conditions for a model of `known` ids. Raises ConfigError where one is impossible."""
        task, changes = TASKS[self.task].Config, self.changes
        base = {"vocab_size": self.vocab_size or known} if "vocab_size" in {f.name for f in fields(task)} else {}
        configs = [parse(task, base | one, "conditions") for one in changes]
        for config in configs:
            require(config.vocab_size <= known, "vocab_size", config.vocab_size, f"the model has only {known} ids")
        keys = dict.fromkeys(["length", *(key for one in changes for key in one)])
        varied = [key for key in keys if key == "length" or len({repr(getattr(config, key)) for config in configs}) > 1]
        cases = [Case({key: getattr(config, key) for key in varied}, config) for config in configs]
        names = [str(Condition(case.where)) for case in cases]
        twice = next((name for name in names if names.count(name) > 1), None)
        require(twice is None, "conditions", twice, "is there more than once")
        return cases


class Case(NamedTuple):
    """One condition."""

    where: dict[str, Any]  # what it is called by
    config: Any  # of the task


def run(model: Model, config: Config, seed: int, *, data: Documents | None = None, progress: Progress | None = None) -> Result:
    """See the module. `data` is read only where the task asks for real text."""
    cases = config.cases(model.config.vocab_size)
    documents = None if data is None else [document.numpy() for document in data]
    counter = Counter(sum(case.config.length for case in cases) * config.examples, progress)
    answered: list[Asked] = []
    with evaluating(model):
        for _, task in cases:
            draw = partial(drawing(config.task, task, documents), seed)
            judge = partial(JUDGES[config.task].judge, model, task, seed) if config.task in JUDGES else None
            size = 0, config.examples, task.length, config.call_tokens
            answered.append(ask_each(model, draw, *size, counter, keys=config.by, judge=judge))
    rows = [r for case, asked in zip(cases, answered, strict=True) for r in _rows(config, case, asked)]
    overall = np.stack([asked.mean("right") for asked in answered], 1).mean(1)
    return Result((*rows, *_effective(config, cases, answered, seed), row({}, "mean_accuracy", mean_interval(overall))))


def answer_rows(where: Mapping[str, Any], answers: Answers, trials: float, chance: float) -> list[Row]:
    """The rows of one condition. trials: answers of an example."""
    n = len(answers.exact)
    return [
        row(where, "accuracy", clustered_proportion(answers.accuracy, trials)),
        row(where, "exact", wilson(int(answers.exact.sum()), n)),
        row(where, "nll", mean_interval(answers.nll)),
        exact_row(where, "chance", chance, n),
    ]


def _rows(config: Config, case: Case, asked: Asked) -> list[Row]:
    """One condition: as a whole, and bin by bin."""
    rows = answer_rows(case.where, asked.answers(), len(asked.example) / asked.examples, TASKS[config.task].chance(case.config))
    own = JUDGES[config.task].SCORES if config.task in JUDGES else ()
    rows += [row(case.where, score, mean_interval(asked.mean(score))) for score in own]
    for key in config.by:
        bins = binned(asked.info[key])
        for edge in np.unique(bins):
            rows += _bin_rows({**case.where, key: edge.item()}, asked, bins == edge)
    return rows


def _bin_rows(where: Mapping[str, Any], asked: Asked, inside: np.ndarray) -> list[Row]:
    answers, total = asked.answers(inside), int(inside.sum())
    n = len(answers.accuracy)
    return [
        row(where, "accuracy", clustered_proportion(answers.accuracy, total / n)),
        row(where, "nll", mean_interval(answers.nll)),
        exact_row(where, "answers", float(total), n),
    ]


def binned(values: np.ndarray) -> np.ndarray:
    """(s,) the lower edge of the bin of each value, see the module."""
    if values.dtype.kind == "f":
        require(bool((values >= 0).all() and (values <= 1).all()), "by", float(values.max()), "only shares can be split in tenths")
        return np.minimum(np.floor(values * TENTHS + 1e-9), TENTHS - 1) / TENTHS
    octaves = 1 << (np.frexp(np.maximum(values, 1).astype(np.float64))[1].astype(np.int64) - 1)
    return np.where(values < EXACT_BELOW, values, octaves)


def _effective(config: Config, cases: list[Case], answered: list[Asked], seed: int) -> list[Row]:
    """The effective size of every group of conditions that differ in `along` alone."""
    groups: dict[Condition, list[tuple[float, dict[str, Any], np.ndarray]]] = {}
    for case, asked in zip(cases, answered, strict=True):
        rest = {key: value for key, value in case.where.items() if key != config.along}
        answers = asked.answers()
        score = answers.accuracy if config.score == "accuracy" else answers.exact.astype(np.float64)
        groups.setdefault(Condition(rest), []).append((getattr(case.config, config.along), rest, score))
    rows = []
    for group in groups.values():
        group.sort(key=lambda entry: entry[0])
        if len(group) > 1:
            sizes, scores = np.array([size for size, _, _ in group]), np.stack([score for _, _, score in group], 1)
            rest, size = group[0][1], _largest(sizes, scores, config.threshold, seed)
            rows += [row(rest, f"effective_{config.along}", size), exact_row(rest, "censored", float(size.value == sizes[-1]), size.n)]
    return rows


def _largest(sizes: np.ndarray, scores: np.ndarray, threshold: float, seed: int) -> Interval:
    """The largest of rising sizes (s,) such that the mean of scores (n, s) is at the threshold or above there and at all before."""

    def statistic(x: Array) -> Array:
        held = np.logical_and.accumulate(x.mean(1) >= threshold, axis=1).sum(1)
        largest: Array = np.concatenate([[0.0], sizes])[held]
        return largest

    size = bootstrap(scores, statistic, seed)
    # a score near the threshold at many sizes is below it at one of them in most resamples: the value is still in its interval
    return size._replace(low=min(size.low, size.value), high=max(size.high, size.value))
