"""The `claim:` of an experiment's YAML.

    claim:
      finding: what was published
      paper: arXiv:0000.00000
      scaled: what is smaller here
      statements:
        - {text: the large state recalls, effect: value, model: large, part: recall, measure: recall, metric: accuracy,
           where: {pairs: 16}, above: 0.9}
        - {text: more than the small, effect: difference, of: {the fields of value}, minus: {model: small}, above: 0}

A statement holds if the 95 % interval of its effect over seeds lies wholly between `above` and `below` (one of them, or both), fails if it
lies wholly on the wrong side of one, and is undecided otherwise. A claim holds if all its statements hold and fails if one fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blocks.errors import ConfigError, require
from train.claims.effects import Difference, Ratio, Value
from train.claims.estimate import Effect
from train.claims.line import Line
from train.claims.scope import Scope
from train.claims.trends import Fit, Rank, Slope
from zoo.config.schema import parse

EFFECTS: dict[str, type[Any]] = {
    "value": Value,
    "difference": Difference,
    "ratio": Ratio,
    "rank": Rank,
    "slope": Slope,
    "line": Line,
    "fit": Fit,
}
OWN = ("text", "effect", "above", "below")  # the keys of every statement


@dataclass(frozen=True, kw_only=True)
class ClaimConfig:
    """A published finding and what must be true of the results if it holds here, too."""

    finding: str  # the published statement
    paper: str  # where: arXiv id
    scaled: str  # what is smaller here
    statements: tuple[dict[str, Any], ...]  # each {text, effect: its type, the type's fields, above and / or below: threshold}

    def __post_init__(self) -> None:
        require(bool(self.statements), "statements", [], "a claim needs at least one statement")


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What every statement says."""

    text: str  # the statement in words
    effect: str  # a type of EFFECTS
    above: float | None = None  # the effect is larger
    below: float | None = None  # the effect is smaller

    def __post_init__(self) -> None:
        require(self.above is not None or self.below is not None, "above", None, "needs a threshold", "above, below, or both")
        ordered = self.above is None or self.below is None or self.above < self.below
        require(ordered, "above", self.above, f"must be less than below, {self.below}")


@dataclass(frozen=True)
class Statement:
    """A checked statement."""

    bounds: Bounds
    effect: Effect


def place(index: int) -> str:
    """Where a statement stands in the YAML."""
    return f"claim.statements[{index}]"


def statements(config: ClaimConfig) -> list[Statement]:
    """The statements of a claim, parsed. Raises ConfigError."""
    return [_statement(values, place(i)) for i, values in enumerate(config.statements)]


def _statement(values: Mapping[str, Any], where: str) -> Statement:
    bounds = parse(Bounds, {key: values[key] for key in OWN if key in values}, where)
    require(bounds.effect in EFFECTS, f"{where}.effect", bounds.effect, "is no type of effect", f"Types: {', '.join(EFFECTS)}")
    rest = {key: value for key, value in values.items() if key not in OWN}
    return Statement(bounds, parse(EFFECTS[bounds.effect], rest, where))


def check_claim(config: ClaimConfig, scope: Scope) -> None:
    """Raise ConfigError for a statement that the experiment could never answer, before anything is trained."""
    for i, statement in enumerate(statements(config)):
        try:
            statement.effect.check(scope)
        except ConfigError as error:
            raise error.within(place(i)) from None
