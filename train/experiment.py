"""An experiment: models matched on an axis, trained on one or more parts, over seeds; planned before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from blocks.base import ConfigError, require
from train.claims.config import ClaimConfig, check_claim
from train.claims.scope import scope_of
from train.config import BudgetConfig, KernelsConfig, RunSpec, TrainConfig
from train.data import Source, open_source
from train.measuring import bytes_per_token, check_measure, parse_measure
from train.spending import Spending
from train.start import check_init
from zoo.config import ModelConfig, load_model
from zoo.schema import dotted, load_yaml, merge, parse
from zoo.solver import Match, match
from zoo.transfer import Transfer

CONFIGS = Path(__file__).parent.parent / "configs"


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


@dataclass(frozen=True)
class PlannedRun:
    """One training run, fully decided."""

    part: str
    model: str
    spec: RunSpec
    tokens: int  # read in training
    params: int
    params_non_embedding: int
    flops_train: int  # of the whole run
    flops_sequence: int  # forward and backward of one sequence
    state_bytes: int  # after one training sequence
    sizes: dict[str, int]  # what the match changed
    mismatch: float  # on the match's axis
    measures: dict[str, tuple[str, Any]]  # name -> (type, Config)
    start: Transfer | None = None  # what is taken over from `init`; None: all weights are new

    @property
    def seed(self) -> int:
        return self.spec.seed

    def as_dict(self, data: str) -> dict[str, Any]:
        """One entry of plan.json's runs."""
        train = self.spec.train
        return {
            "part": self.part,
            "model": self.model,
            "seed": self.seed,
            "params": self.params,
            "params_non_embedding": self.params_non_embedding,
            "flops_train": self.flops_train,
            "flops_sequence": self.flops_sequence,
            "state_bytes": self.state_bytes,
            "tokens": self.tokens,
            "steps": self.spec.steps,
            "lr": train.lr,
            "batch_size": train.sequences_per_step,
            "sizes": self.sizes,
            "mismatch": self.mismatch,
            "data": data,
            "start": None if self.start is None else {"init": self.spec.init, "fresh": self.start.fresh, "left": self.start.left},
        }


@dataclass(frozen=True)
class Plan:
    """All runs of an experiment and the match of every part."""

    experiment: Experiment
    runs: tuple[PlannedRun, ...]
    matches: dict[str, Match]
    sources: dict[str, Source]

    def as_dict(self) -> dict[str, Any]:
        """The object that `zoo plan --json` prints and plan.json holds."""
        config = self.experiment.config
        worst = max(m.worst for m in self.matches.values())
        return {
            "experiment": config.name,
            "question": config.question,
            "runs": [run.as_dict(self.sources[run.part].label) for run in self.runs],
            "match": {"axis": config.match.axis, "reference": config.match.reference, "tolerance": config.match.tolerance, "worst": worst},
            "measures": {part: _kinds(self.runs, part) for part in self.sources},
            "data": {name: {"label": s.label, "fingerprint": s.fingerprint, "length": s.length} for name, s in self.sources.items()},
        }

    def starts(self) -> list[str]:
        """A line for each model that starts from given weights: which of its blocks are new."""
        found = {f"{r.model} starts from {r.spec.init}: {r.start}" for r in self.runs if r.start is not None}
        return sorted(found)


def _kinds(runs: Sequence[PlannedRun], part: str) -> dict[str, str]:
    """The measures of a part: name -> type."""
    return {name: kind for run in runs if run.part == part for name, (kind, _) in run.measures.items()}


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


def make_plan(experiment: Experiment) -> Plan:
    """Match every part's models, turn budgets into steps. Trains nothing. Raises ConfigError."""
    runs: list[PlannedRun] = []
    matches, sources = {}, {}
    for part in experiment.parts:
        matches[part], sources[part] = _match_part(experiment, part)
        for member in matches[part].models:
            runs += [_planned(experiment, part, member, seed, matches[part], sources[part]) for seed in experiment.config.seeds]
    if experiment.config.claim is not None:
        check_claim(experiment.config.claim, scope_of(runs, {part: source.length for part, source in sources.items()}))
    return Plan(experiment, tuple(runs), matches, sources)


def _match_part(experiment: Experiment, part: str) -> tuple[Match, Source]:
    spec, rule = experiment.parts[part], experiment.config.match
    try:
        source = open_source(spec.data, experiment.config.seeds[0])
    except ConfigError as error:
        raise error.within(f"parts.{part}") from None
    names = spec.members or tuple(experiment.members)
    models = {name: model_of(experiment, name, part) for name in names}
    for name, model in models.items():
        if model.vocab_size < source.vocab_size:
            rule_text = f"the data has ids up to {source.vocab_size - 1}"
            raise ConfigError(
                f"models.{name}.vocab_size", model.vocab_size, rule_text, f"parts.{part}.set: {{vocab_size: {source.vocab_size}}}"
            )
    vary = {name: experiment.members[name].vary for name in names}
    found = match(models, reference=rule.reference, length=source.length, axis=rule.axis, vary=vary, tolerance=rule.tolerance)
    return found, source


def _planned(experiment: Experiment, part: str, member: str, seed: int, matched: Match, source: Source) -> PlannedRun:
    spec, found = experiment.parts[part], matched.models[member]
    place = f"models.{member}.train.{part}"
    train = parse(TrainConfig, merge(asdict(spec.train), experiment.members[member].train.get(part, {})), place)
    spending = Spending(found.config, source.lengths, train.sequences_per_step)
    steps = spending.steps(spec.budget)
    run = RunSpec(
        name=f"{experiment.config.name}/{part}/{member}",
        model=found.config,
        data=dict(spec.data),
        train=train,
        budget=spec.budget,
        kernels=experiment.config.kernels,
        seed=seed,
        steps=steps,
        init=experiment.members[member].init,
        fresh=experiment.members[member].fresh,
    )
    try:
        start = check_init(run)
    except ConfigError as error:
        raise error.within(f"models.{member}") from None
    where = f"parts.{part}.measures"
    rate = bytes_per_token(source)
    measures = {name: parse_measure(name, m, f"{where}.{name}", source.length, rate) for name, m in spec.measures.items()}
    for name, (kind, config) in measures.items():
        check_measure(kind, config, source, found.config, f"{where}.{name}")
    return PlannedRun(
        part=part,
        model=member,
        spec=run,
        tokens=spending.tokens(steps),
        params=found.ledger.params,
        params_non_embedding=found.ledger.params_non_embedding,
        flops_train=spending.flops(steps),
        flops_sequence=found.ledger.flops_train,
        state_bytes=found.ledger.state_bytes,
        sizes=found.sizes,
        mismatch=found.mismatch,
        measures=measures,
        start=start,
    )
