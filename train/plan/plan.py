"""The plan of an experiment: every run decided, sizes matched and budgets turned into steps before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from blocks.errors import ConfigError
from train.claims.config import check_claim
from train.claims.scope import Scope
from train.config.experiment import Experiment, model_of
from train.config.run import RunConfig, TrainConfig
from train.data import Source, open_source
from train.measure.measure import bytes_per_token, check_measure, parse_measure
from train.plan.budget import Spending
from train.plan.claim_scope import scope_of
from train.plan.initial_weights import check_init
from train.plan.planned_run import PlannedRun
from zoo.config.schema import merge, parse
from zoo.ledger.match import Match, match


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

    def scope(self) -> Scope:
        """What the statements of a claim may name."""
        return scope_of(self.runs, {part: source.length for part, source in self.sources.items()})

    def starts(self) -> list[str]:
        """A line for each model that starts from given weights: which of its blocks are new."""
        found = {f"{r.model} starts from {r.spec.init}: {r.start}" for r in self.runs if r.start is not None}
        return sorted(found)


def _kinds(runs: Sequence[PlannedRun], part: str) -> dict[str, str]:
    """The measures of a part: name -> type."""
    return {name: kind for run in runs if run.part == part for name, (kind, _) in run.measures.items()}


def make_plan(experiment: Experiment) -> Plan:
    """Match every part's models, turn budgets into steps. Trains nothing. Raises ConfigError."""
    runs: list[PlannedRun] = []
    matches, sources = {}, {}
    for part in experiment.parts:
        matches[part], sources[part] = _match_part(experiment, part)
        for member in matches[part].models:
            runs += [_planned(experiment, part, member, seed, matches[part], sources[part]) for seed in experiment.config.seeds]
    plan = Plan(experiment, tuple(runs), matches, sources)
    if experiment.config.claim is not None:
        check_claim(experiment.config.claim, plan.scope())
    return plan


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
    run = RunConfig(
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
