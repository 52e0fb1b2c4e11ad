"""An experiment's YAML: models matched on an axis, trained on one or more parts, over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blocks.errors import ConfigError, require
from train.claims.config import ClaimConfig
from train.config.run import BudgetConfig, KernelsConfig, TrainConfig
from zoo.config.model import ModelConfig, load_model
from zoo.config.schema import dotted, load_yaml, merge, parse

CONFIGS = Path(__file__).parents[2] / "configs"


@dataclass(frozen=True, kw_only=True)
class MemberConfig:
    """One model of an experiment."""

    model: Any  # a model YAML's path (from the experiment's folder or configs/models), or a model's mapping
    set: dict[str, Any] = field(default_factory=dict)  # changes to it
    vary: tuple[str, ...] = ("width",)  # what the match may change: width, depth, blocks.NAME.KEY
    train: dict[str, Any] = field(default_factory=dict)  # part -> changes to its training, such as {lr: 0.01}
    init: str | None = None  # start from these weights: a run, a checkpoint, an imported folder; with vary: [] its sizes are kept
    fresh: tuple[str, ...] | None = None  # blocks whose weights are new all the same; null = those that init lacks


@dataclass(frozen=True, kw_only=True)
class MatchConfig:
    """What is alike between the members of a part."""

    reference: str  # the member that keeps its sizes
    axis: str = "flops"  # flops | params | state
    tolerance: float = 0.01  # largest relative mismatch


@dataclass(frozen=True, kw_only=True)
class PartConfig:
    """One data set with its training and its measures."""

    data: dict[str, Any]  # see train.data
    budget: BudgetConfig  # flops | tokens | steps, for each run
    train: TrainConfig  # for every member, unless it changes it
    set: dict[str, Any] = field(default_factory=dict)  # changes to every model, such as its vocab_size
    measures: dict[str, Any] = field(default_factory=dict)  # a name -> {measure: its type (the name if left out), its fields}
    members: tuple[str, ...] | None = None  # which models take part; null = all


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """What an experiment's YAML holds."""

    name: str  # its folder's name under runs/
    question: str  # what it answers
    models: dict[str, Any]  # name -> MemberConfig
    parts: dict[str, Any]  # name -> PartConfig
    match: MatchConfig
    kernels: KernelsConfig = field(default_factory=KernelsConfig)  # who computes: {backend: auto, verify: true}
    seeds: tuple[int, ...] = (0, 1, 2)  # of the weights and the data order
    claim: ClaimConfig | None = None  # a published finding, and what must be true of the results if it holds here


@dataclass(frozen=True)
class Experiment:
    """A checked experiment."""

    config: ExperimentConfig
    members: dict[str, MemberConfig]
    parts: dict[str, PartConfig]
    folder: Path  # of its YAML: model paths are looked up from here


def load_experiment(path: str | Path, overrides: list[str] | None = None) -> Experiment:
    """A checked experiment from its YAML. Raises ConfigError."""
    path = Path(path)
    values = merge(load_yaml(path), dotted(overrides or []))
    config = parse(ExperimentConfig, values)
    require(bool(config.models), "models", config.models, "an experiment needs at least one model")
    require(bool(config.parts), "parts", config.parts, "an experiment needs at least one part")
    require(
        bool(config.seeds) and len(set(config.seeds)) == len(config.seeds), "seeds", list(config.seeds), "must be different whole numbers"
    )
    require(
        config.name.replace("-", "").replace("_", "").isalnum(), "name", config.name, "must be letters, digits, - and _: it names a folder"
    )
    members = {
        name: parse(MemberConfig, m if isinstance(m, Mapping) else {"model": m}, f"models.{name}") for name, m in config.models.items()
    }
    parts = {name: parse(PartConfig, part, f"parts.{name}") for name, part in config.parts.items()}
    for name, part in parts.items():
        _check_part(name, part, members)
    for name, member in members.items():
        unknown = set(member.train) - set(parts)
        require(not unknown, f"models.{name}.train", ", ".join(sorted(unknown)), "names no part", f"Parts: {', '.join(parts)}")
    return Experiment(config, members, parts, path.parent)


def _check_part(name: str, part: PartConfig, members: Mapping[str, MemberConfig]) -> None:
    for member in part.members or ():
        require(member in members, f"parts.{name}.members", member, "is none of the models", f"Models: {', '.join(members)}")


def model_of(experiment: Experiment, member: str, part: str) -> ModelConfig:
    """The model of a member in a part, before the match. Raises ConfigError with the member's place."""
    spec = experiment.members[member]
    changes = merge(experiment.parts[part].set, spec.set)
    try:
        source = spec.model if isinstance(spec.model, Mapping) else _find(experiment.folder, str(spec.model))
        return load_model(source, changes)
    except ConfigError as error:
        raise error.within(f"models.{member}") from None


def _find(folder: Path, name: str) -> Path:
    places = (folder / name, CONFIGS / "models" / name, Path(name))
    for place in places:
        if place.is_file():
            return place
    raise ConfigError("model", name, "there is no such file", f"looked in {', '.join(str(p.parent) for p in places[:2])}")
