"""The names and numbers of a planned experiment that the statements of its claim may use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from train.claims.scope import Scope
from train.plan.planned_run import PlannedRun
from zoo.config.model import ModelConfig, model_mapping
from zoo.ledger.growth import growing


def scope_of(runs: Sequence[PlannedRun], lengths: Mapping[str, int]) -> Scope:
    """The scope of planned runs; lengths: part -> tokens of a training sequence."""
    models: dict[str, dict[str, None]] = {}
    measures: dict[str, dict[str, str]] = {}
    for run in runs:
        models.setdefault(run.part, {})[run.model] = None
        measures.setdefault(run.part, {"training": "training"}).update({name: kind for name, (kind, _) in run.measures.items()})
    return Scope(
        seeds=tuple(dict.fromkeys(run.seed for run in runs)),
        models={part: tuple(names) for part, names in models.items()},
        measures=measures,
        lengths=dict(lengths),
        numbers={(run.part, run.model): _numbers(run) for run in runs},
    )


def _numbers(run: PlannedRun) -> dict[str, float]:
    """state_bytes, params, flops_train, attention_share, and every number of the model's YAML by its dotted key."""
    own = {"state_bytes": run.state_bytes, "params": run.params, "flops_train": run.flops_train}
    return {**own, "attention_share": attention_share(run.config.model), **dict(_leaves(model_mapping(run.config.model)))}


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{key}", value


def attention_share(model: ModelConfig) -> float:
    """The share of a model's mixers that keep all of the text: whose state grows with it for ever."""
    mixers = [name for layer in model.layers for name in layer if model.named[name].config.kind == "mixer"]
    return len(growing(model)) / len(mixers) if mixers else 0.0
