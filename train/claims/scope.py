"""What statements may name in an experiment: its parts, models, measures and the models' numbers. Known before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from blocks.errors import ConfigError, require
from zoo.measures import MEASURES

TRAINING = "training"  # the measure that every run has: the loss of the training's steps


@dataclass(frozen=True)
class Scope:
    """The names and numbers of an experiment."""

    seeds: tuple[int, ...]
    models: dict[str, tuple[str, ...]]  # part -> its models
    measures: dict[str, dict[str, str]]  # part -> measure's name -> its type
    lengths: dict[str, int]  # part -> tokens of a training sequence
    numbers: dict[tuple[str, str], dict[str, float]]  # (part, model) -> what a trend may go over

    def check_series(self, part: str, measure: str, metric: str) -> None:
        """Raise ConfigError with the nearest alternatives for a name that isn't there."""
        require(part in self.models, "part", part, "is no part", f"Parts: {', '.join(self.models)}")
        known = self.measures[part]
        require(measure in known, "measure", measure, f"is no measure of part {part}", f"Measures: {', '.join(known)}")
        metrics = metrics_of(known[measure])
        there = any(fnmatchcase(metric, pattern) for pattern in metrics)
        require(there, "metric", metric, f"is no metric of {known[measure]}", f"Metrics: {', '.join(metrics)}")

    def check_model(self, part: str, model: str, place: str = "model") -> None:
        """Raise ConfigError unless the model takes part."""
        require(model in self.models[part], place, model, f"is no model of part {part}", f"Models: {', '.join(self.models[part])}")

    def number(self, part: str, model: str, key: str) -> float:
        """A number of a model as it is trained in a part. Raises ConfigError."""
        known = self.numbers[part, model]
        if key not in known:
            raise ConfigError("over", key, f"is no number of {model}", f"Numbers: {', '.join(known)}")
        return known[key]


def metrics_of(measure: str) -> tuple[str, ...]:
    """The metrics of a measure's type; `*` stands for any text."""
    return ("loss",) if measure == TRAINING else MEASURES[measure].METRICS
