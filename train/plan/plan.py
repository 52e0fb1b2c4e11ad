"""The plan of an experiment: every run decided, sizes matched and budgets turned into steps before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from torch import Tensor

from blocks.errors import ConfigError
from train.claims.config import check_claim
from train.claims.scope import Scope
from train.config.experiment import Experiment, model_of
from train.config.run import RunConfig, TrainConfig
from train.data import Source, open_source
from train.data.vocabulary import check_vocabulary
from train.measure.measure import bytes_per_token, check_measure, parse_measure
from train.plan.budget import Spending
from train.plan.claim_scope import scope_of
from train.plan.initial_weights import plan_init
from train.plan.planned_run import PlannedRun
from zoo.config.model import ModelConfig
from zoo.config.schema import merge, parse
from zoo.convert.model_folder import read_shapes
from zoo.ledger.match import Match, Matched, match
from zoo.measures.shared.base import MeasureConfig


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
            "experiment_file": self.experiment.file_as_dict(),
            "runs": [run.as_dict(self.sources[run.part].label) for run in self.runs],
            "match": {"axis": config.match.axis, "reference": config.match.reference, "tolerance": config.match.tolerance, "worst": worst},
            "measures": {part: _kinds(self.runs, part) for part in self.sources},
            "data": {name: {"label": s.label, "fingerprint": s.fingerprint, "length": s.length} for name, s in self.sources.items()},
        }

    def scope(self) -> Scope:
        """What the statements of a claim may name."""
        return scope_of(self.runs, {part: source.length for part, source in self.sources.items()})

    def starts(self) -> list[str]:
        """A line for each model that starts from given weights: which of its blocks are new."""
        return sorted({f"{run.model} starts from {run.config.init}: {run.transfer}" for run in self.runs if run.transfer is not None})


def _kinds(runs: Sequence[PlannedRun], part: str) -> dict[str, str]:
    """The measures of a part: name -> type."""
    return {name: kind for run in runs if run.part == part for name, (kind, _) in run.measures.items()}


def make_plan(experiment: Experiment) -> Plan:
    """Match every part's models, turn budgets into steps. Trains nothing. Raises ConfigError."""
    shapes = cache(read_shapes)  # of each `init`, for all models and parts
    runs: list[PlannedRun] = []
    matches, sources = {}, {}
    for part in experiment.config.parts:
        matches[part], sources[part] = _match_part(experiment, part)
        for model in matches[part].models:
            runs += _planned(experiment, part, model, matches[part].models[model], sources[part], shapes)
    plan = Plan(experiment, tuple(runs), matches, sources)
    if experiment.config.claim is not None:
        check_claim(experiment.config.claim, plan.scope())
    return plan


def _match_part(experiment: Experiment, name: str) -> tuple[Match, Source]:
    config, part, rule = experiment.config, experiment.config.parts[name], experiment.config.match
    try:
        source = open_source(part.data, config.seeds[0])
    except ConfigError as error:
        raise error.within(f"parts.{name}") from None
    models = {model: model_of(experiment, model, name) for model in config.models_of(name)}
    for model, sized in models.items():
        remedy = f"parts.{name}.set: {{vocab_size: {source.vocab_size}}}"
        check_vocabulary(source, sized.vocab_size, f"models.{model}.vocab_size", remedy)
    vary = {model: config.models[model].vary for model in models}
    match_ = match(models, reference=rule.reference, length=source.length, axis=rule.axis, vary=vary, tolerance=rule.tolerance)
    return match_, source


Shapes = Callable[[str], Mapping[str, Tensor]]  # of the weights that `init` names


def _planned(experiment: Experiment, part_name: str, model: str, matched: Matched, source: Source, shapes: Shapes) -> list[PlannedRun]:
    """The runs of a model in a part, one a seed."""
    config, part, entry = experiment.config, experiment.config.parts[part_name], experiment.config.models[model]
    changes = entry.train.get(part_name, {})
    train = parse(TrainConfig, merge(asdict(part.train), changes), f"models.{model}.train.{part_name}")
    spending = Spending(matched.config, source.lengths, train.sequences_per_step)
    run = RunConfig(
        name=f"{config.name}/{part_name}/{model}",
        model=matched.config,
        data=dict(part.data),
        train=train,
        budget=part.budget,
        kernels=config.kernels,
        seed=config.seeds[0],
        steps=spending.steps(part.budget),
        init=entry.init,
        fresh=entry.fresh,
    )
    try:
        transfer = plan_init(run, None if run.init is None else shapes(run.init))
    except ConfigError as error:
        raise error.within(f"models.{model}") from None
    measures = _measures(part.measures, run.model, source, f"parts.{part_name}.measures")
    planned = PlannedRun(
        part=part_name,
        model=model,
        config=run,
        ledger=matched.ledger,
        tokens=spending.tokens(run.steps),
        flops_train=spending.flops(run.steps),
        sizes=matched.sizes,
        mismatch=matched.mismatch,
        measures=measures,
        transfer=transfer,
    )
    return [replace(planned, config=replace(run, seed=seed)) for seed in config.seeds]


def _measures(entries: Mapping[str, Any], model: ModelConfig, source: Source, place: str) -> dict[str, tuple[str, MeasureConfig]]:
    """The measures of a part: name -> (type, Config). Raises ConfigError where the model can't be measured so."""
    rate = bytes_per_token(source)
    measures = {name: parse_measure(name, entry, f"{place}.{name}", source.length, rate) for name, entry in entries.items()}
    for name, (kind, config) in measures.items():
        check_measure(kind, config, source, model, f"{place}.{name}")
    return measures
