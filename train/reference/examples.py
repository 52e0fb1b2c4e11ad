"""Examples for the pages, taken from the YAML files that come with the zoo: of a block, a task, a measure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from train.reference.catalogue import CONFIGS, load_yaml
from train.reference.fields import Field, yaml_text
from train.reference.source import ROOT

REQUIRED = {"train_length": 256, "task": "mqar"}  # values for keys that an example must have


class Model(NamedTuple):
    """A model's YAML that uses a block."""

    path: Path
    values: dict[str, Any]  # with the changes of `tiny:` where it has them
    name: str  # of the block in it


def models_with(block: str) -> list[Model]:
    """The models that use a block: those of configs/models first, then the published ones, by name."""
    return [Model(path, values, name) for path, values in _models() for name in [_named(values, block)] if name is not None]


def simplest(models: list[Model]) -> Model:
    """The one to show: not a published size if there is another, with the fewest blocks, with the shortest text."""
    return min(models, key=lambda m: (m.path.parent.name == "published", len(m.values["blocks"]), len(yaml_text(m.values)), m.path.name))


def model_of(model: Model) -> dict[str, Any]:
    """A model of one sub-layer, the block as it stands there, at that width."""
    spec = _inherited(model.values["blocks"], model.name)
    uses = {key: spec[key] for key in spec if key not in ("share", "into", "norm_place", "skip_scale", "input_scale", "output_scale")}
    kept = {key: model.values[key] for key in ("d_model", "vocab_size")}
    tokens = {"tokens": model.values["tokens"]} if "tokens" in model.values else {}
    return {**kept, "blocks": {model.name: uses}, "pattern": model.name, **tokens}


def model_text(values: Mapping[str, Any]) -> str:
    """A model of one block as YAML."""
    lines = [f"d_model: {values['d_model']}", f"vocab_size: {values['vocab_size']}", "blocks:"]
    lines += [f"  {name}: {yaml_text(spec)}" for name, spec in values["blocks"].items()]
    lines += [f"pattern: {values['pattern']}"]
    return "\n".join([*lines, *([f"tokens: {yaml_text(values['tokens'])}"] if "tokens" in values else [])])


def task_example(task: str, fields: list[Field]) -> str:
    """`data:` with a task, as the first experiment or claim that trains on it has it, else with its defaults."""
    for part in _parts():
        if part["data"].get("kind") == task:
            return f"data: {yaml_text(part['data'])}"
    required = {f.name: REQUIRED[f.name] for f in fields if f.default is None}
    return f"data: {yaml_text({'kind': task, **required})}"


def measure_example(measure: str, fields: list[Field]) -> str:
    """`measures:` with a measure, as the first experiment or claim that takes it has it, else with its defaults."""
    for part in _parts():
        for name, values in part.get("measures", {}).items():
            if values.get("measure", name) == measure:
                return f"measures: {yaml_text({name: values})}"
    required = {f.name: REQUIRED[f.name] for f in fields if f.default is None}
    return f"measures: {yaml_text({measure: required})}"


@cache
def _parts() -> tuple[dict[str, Any], ...]:
    """The parts of every experiment, then of every claim."""
    paths = [path for folder in ("experiments", "claims") for path in sorted((CONFIGS / folder).rglob("*.yaml"))]
    return tuple(part for path in paths for part in load_yaml(path)["parts"].values())


@cache
def _models() -> tuple[tuple[Path, dict[str, Any]], ...]:
    paths = [path for folder in ("models", "models/published") for path in sorted((CONFIGS / folder).glob("*.yaml"))]
    return tuple((path.relative_to(ROOT), _small(load_yaml(path))) for path in paths)


def _small(values: dict[str, Any]) -> dict[str, Any]:
    return _merged(values, values.get("tiny", {}))


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = {key: _merged(base[key], over[key]) for key in over if isinstance(base.get(key), dict) and isinstance(over[key], dict)}
    return {**base, **over, **both}


def _named(values: Mapping[str, Any], block: str) -> str | None:
    return next((name for name in values["blocks"] if _inherited(values["blocks"], name)["type"] == block), None)


def _inherited(blocks: Mapping[str, Any], name: str) -> dict[str, Any]:
    spec = blocks[name]
    if "like" not in spec:
        return dict(spec)
    return {**_inherited(blocks, spec["like"]), **{key: value for key, value in spec.items() if key != "like"}}
