"""Multi-query associative recall by number of pairs and length: how many of the pairs it has read a model can still name.

Accuracy = argmax over the whole vocabulary at the labelled positions of zoo.tasks.mqar, held-out examples. The answers within an
example are not independent: the interval is Wilson's at the effective number of answers (clustered_proportion).

    condition  length=128;pairs=8[;overwrite=0.5]
    metrics    accuracy; exact (share of examples without any error, Wilson); nll (nats an answer, t over examples); chance;
               with overwrite also stale (share of answers that give the value a key had before it was overwritten)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from blocks.errors import require
from zoo.config.model import ModelConfig
from zoo.measures.shared.base import Documents, Headline, MeasureConfig, Progress, Result, Row, row
from zoo.measures.shared.statistics import clustered_proportion
from zoo.measures.shared.streaming import CALL_TOKENS, Answers, Counter, ask, evaluating
from zoo.measures.task import answer_rows
from zoo.model.model import Model
from zoo.tasks import mqar

SUMMARY = "associative recall: accuracy by number of pairs and length, with or without overwriting"
METRICS = ("accuracy", "exact", "nll", "chance", "stale")
HEADLINE = (Headline("accuracy", "%", 100.0, key="pairs", title="{pairs} pairs, {length} tokens".format_map),)
RESUMABLE = False


@dataclass(frozen=True, kw_only=True)
class Config(MeasureConfig):
    """Sizes of the measure."""

    sizes: tuple[tuple[int, int], ...] | None = None  # (length, pairs) of each condition; null: of the usual ones, those with enough ids
    overwrite: float = 0.0  # share of the keys that get a new value, in every condition
    power: float | None = None  # see zoo.tasks.mqar
    filler: str = "random"  # see zoo.tasks.mqar
    vocab_size: int | None = None  # of the task; null: the model's
    examples: int = 128  # held-out examples of each condition
    call_tokens: int = CALL_TOKENS  # tokens that one forward call reads

    def __post_init__(self) -> None:
        require(
            self.sizes is None or len(self.sizes) >= 1,
            "sizes",
            self.sizes,
            "needs at least one [length, pairs]",
            "for example [[128, 8], [256, 32]]",
        )
        require(self.examples >= 2, "examples", self.examples, "must be at least 2")
        require(self.call_tokens >= 1, "call_tokens", self.call_tokens, "must be positive")

    def check(self, model: ModelConfig) -> None:
        self.tasks(model.vocab_size)

    def tasks(self, known: int) -> list[mqar.Config]:
        """The task of each condition for a model of `known` ids. Raises ConfigError where it is impossible."""
        vocab = self.vocab_size or known
        require(vocab <= known, "vocab_size", vocab, f"the model has only {known} ids")
        base = {"vocab_size": vocab, "power": self.power, "filler": self.filler, "overwrite": self.overwrite}
        sizes = self.sizes or mqar.usual_sizes(vocab, self.overwrite)
        return [mqar.Config(length=length, pairs=pairs, **base) for length, pairs in sizes]  # type: ignore[arg-type]


def run(model: Model, config: Config, seed: int, *, data: Documents | None = None, progress: Progress | None = None) -> Result:
    """See the module. `data` is not read."""
    tasks = config.tasks(model.config.vocab_size)
    counter = Counter(sum(task.length for task in tasks) * config.examples, progress)
    rows: list[Row] = []
    with evaluating(model):
        for task in tasks:
            examples = partial(mqar.generate, task, seed)
            rows += _rows(task, ask(model, examples, 0, config.examples, task.length, config.call_tokens, counter))
    return Result(tuple(rows))


def _rows(task: mqar.Config, answers: Answers) -> list[Row]:
    where: dict[str, float] = {"length": task.length, "pairs": task.pairs}
    if task.overwrite:
        where["overwrite"] = float(task.overwrite)
    rows = answer_rows(where, answers, task.pairs, mqar.chance(task))
    if task.overwrite:
        rows.append(row(where, "stale", clustered_proportion(answers.stale, task.pairs)))
    return rows
