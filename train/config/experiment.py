"""An experiment's YAML: models matched on an axis, trained on one or more parts, over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from blocks.errors import ConfigError, require
from train.claims.config import ClaimConfig
from train.config.run import BudgetConfig, KernelsConfig, TrainConfig
from zoo.config.model import ModelConfig, load_model
from zoo.config.schema import Prepared, dotted, load_yaml, merge, parse

CONFIGS = Path(__file__).parents[2] / "configs"


@dataclass(frozen=True, kw_only=True)
class ModelEntry(Prepared):
    """One model of an experiment: a mapping of these keys, or the path of its YAML alone."""

    model: Any  # a model YAML's path (from the experiment's folder or configs/models), or a model's mapping
    set: dict[str, Any] = field(default_factory=dict)  # changes to it
    vary: tuple[str, ...] = ("width",)  # what the match may change: width, depth, blocks.NAME.KEY
    train: dict[str, Any] = field(default_factory=dict)  # part -> changes to its training, such as {lr: 0.01}
    init: str | None = None  # start from these weights: a run, a checkpoint, an imported folder; with vary: [] its sizes are kept
    fresh: tuple[str, ...] | None = None  # blocks whose weights are new all the same; null = those that init lacks

    @classmethod
    def prepare(cls, values: Any, place: str) -> Any:
        return {"model": values} if isinstance(values, str) else values


@dataclass(frozen=True, kw_only=True)
class MatchConfig:
    """What is alike between the models of a part."""

    reference: str  # the model that keeps its sizes
    axis: str = "flops"  # flops | params | state
    tolerance: float = 0.01  # largest relative mismatch


@dataclass(frozen=True, kw_only=True)
class PartConfig:
    """One data set with its training and its measures."""

    data: dict[str, Any]  # see train.data
    budget: BudgetConfig  # flops | tokens | steps, for each run
    train: TrainConfig  # for every model, unless it changes it
    set: dict[str, Any] = field(default_factory=dict)  # changes to every model, such as its vocab_size
    measures: dict[str, Any] = field(default_factory=dict)  # a name -> {measure: its type (the name if left out), its fields}
    members: tuple[str, ...] | None = None  # which models take part; null = all


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """What an experiment's YAML holds."""

    name: str  # its folder's name under runs/
    question: str  # what it answers
    models: dict[str, ModelEntry]
    parts: dict[str, PartConfig]
    match: MatchConfig
    kernels: KernelsConfig = field(default_factory=KernelsConfig)  # who computes: {backend: auto, verify: true}
    seeds: tuple[int, ...] = (0, 1, 2)  # of the weights and the data order
    claim: ClaimConfig | None = None  # a published finding, and what must be true of the results if it holds here

    def __post_init__(self) -> None:
        name, seeds = self.name, self.seeds
        require(bool(self.models), "models", self.models, "an experiment needs at least one model")
        require(bool(self.parts), "parts", self.parts, "an experiment needs at least one part")
        require(bool(seeds) and len(set(seeds)) == len(seeds), "seeds", list(seeds), "must be different whole numbers")
        require(name.replace("-", "").replace("_", "").isalnum(), "name", name, "must be letters, digits, - and _: it names a folder")
        for part_name, part in self.parts.items():
            for model in part.members or ():
                known = f"Models: {', '.join(self.models)}"
                require(model in self.models, f"parts.{part_name}.members", model, "is none of the models", known)
        for model, entry in self.models.items():
            unknown = ", ".join(sorted(set(entry.train) - set(self.parts)))
            require(not unknown, f"models.{model}.train", unknown, "names no part", f"Parts: {', '.join(self.parts)}")

    def models_of(self, part: str) -> tuple[str, ...]:
        """The names of the models that take part."""
        return self.parts[part].members or tuple(self.models)


@dataclass(frozen=True)
class ExperimentFile:
    """Where an experiment came from: enough to run it again."""

    path: str  # of its YAML, as given
    overrides: tuple[str, ...]  # key=value, as given
    text: str  # of the YAML


@dataclass(frozen=True)
class Experiment:
    """A checked experiment and the file that it was read from."""

    config: ExperimentConfig
    file: ExperimentFile

    def file_as_dict(self) -> dict[str, Any]:
        """plan.json's `experiment_file`."""
        return asdict(self.file) | {"overrides": list(self.file.overrides)}


def load_experiment(path: str | Path, overrides: Sequence[str] | None = None) -> Experiment:
    """A checked experiment from its YAML. Raises ConfigError."""
    given = tuple(overrides or ())
    config = parse(ExperimentConfig, merge(load_yaml(path), dotted(list(given))))
    return Experiment(config, ExperimentFile(str(path), given, Path(path).read_text(encoding="utf-8")))


def model_of(experiment: Experiment, model: str, part: str) -> ModelConfig:
    """A model of the experiment in a part, before the match. Raises ConfigError with the model's place."""
    entry = experiment.config.models[model]
    changes = merge(experiment.config.parts[part].set, entry.set)
    try:
        source = entry.model if isinstance(entry.model, Mapping) else _model_path(Path(experiment.file.path).parent, str(entry.model))
        return load_model(source, changes)
    except ConfigError as error:
        raise error.within(f"models.{model}") from None


def _model_path(folder: Path, name: str) -> Path:
    places = (folder / name, CONFIGS / "models" / name, Path(name))
    for place in places:
        if place.is_file():
            return place
    raise ConfigError("model", name, "there is no such file", f"looked in {', '.join(str(p.parent) for p in places[:2])}")
