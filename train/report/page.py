"""report.html: one self-contained page of an experiment's folder, built from plan.json and results.csv. No weights are loaded.

environment.json of a run, timing.json and verdict.json are shown where they are there. What the plan.json of an earlier version lacks (the
ledgers, the experiment's file) is read from the runs' config.yaml or left out.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from blocks.errors import ConfigError
from train.claims.verdict import read_verdict
from train.measure.results import Record, frame, read
from train.report import claim_text, plots
from train.report.claim_figures import statement_svg
from train.report.figures import pictures
from train.report.figures.shared.picture import Picture
from train.report.html import as_html, write_page
from train.report.summary_table import Line, summary
from zoo.config.model import load_model
from zoo.config.schema import load_yaml
from zoo.ledger.ledger import ledger

FILES = ("plan.json", "results.csv")


def build_report(folder: str | Path) -> Path:
    """Write report.html from what the folder holds. Raises ConfigError where it is not a finished experiment."""
    folder = Path(folder)
    plan, records = read_experiment(folder)
    lines = summary(records, measure_types(plan), plan["match"]["reference"])
    return write_page(
        "report.html",
        folder / "report.html",
        plan=plan,
        claim=_claim(folder),
        parts=[_part(folder, plan, part, records, lines) for part in plan["data"]],
        command=_command(plan),
        environment=_json(_run_folder(folder, plan["runs"][0]) / "environment.json"),
        seconds=_json(folder / "timing.json"),
        seeds=sorted({run["seed"] for run in plan["runs"]}),
    )


def read_experiment(folder: Path) -> tuple[dict[str, Any], list[Record]]:
    """plan.json and the records of a finished experiment. Raises ConfigError where it is none, or no comparison."""
    for name in FILES:
        if not (folder / name).is_file():
            raise ConfigError(str(folder / name), None, "there is no such file", "is this the folder of a finished `zoo run`?")
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    if plan["match"]["worst"] > plan["match"]["tolerance"]:
        raise ConfigError(str(folder), plan["match"]["worst"], "its models differ by more than the tolerance: not a comparison")
    return plan, read(folder / "results.csv")


def measure_types(plan: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """(part, measure's name) -> the measure's type, in the experiment's order."""
    return {(part, name): measure for part, measures in plan["measures"].items() for name, measure in measures.items()}


def runs_of(plan: Mapping[str, Any], part: str) -> dict[str, dict[str, Any]]:
    """The first run of each model of a part: model -> its entry in plan.json."""
    runs: dict[str, dict[str, Any]] = {}
    for run in plan["runs"]:
        if run["part"] == part:
            runs.setdefault(run["model"], run)
    return runs


def _run_folder(folder: Path, run: Mapping[str, Any]) -> Path:
    return folder / run["part"] / f"{run['model']}-seed{run['seed']}"


def _json(path: Path) -> dict[str, Any] | None:
    """What a file holds; None where there is none."""
    values: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return values


def _command(plan: Mapping[str, Any]) -> str | None:
    """What was typed; None where plan.json doesn't say it."""
    file = plan.get("experiment_file")
    return None if file is None else shlex.join(["zoo", "run", file["path"], *file["overrides"]])


def _claim(folder: Path) -> dict[str, Any] | None:
    """The verdict with its numbers as text and its pictures; None where the experiment makes no claim."""
    verdict = read_verdict(folder)
    if verdict is None:
        return None
    statements = [
        {**row, "value": claim_text.number(row["estimate"]), "interval": claim_text.interval(row), "threshold": claim_text.threshold(row)}
        for row in verdict["statements"]
    ]
    svgs = [Markup(statement_svg(row)) for row in statements]  # made here
    return {**verdict, "statements": statements, "pictures": svgs, "time": claim_text.seconds(verdict)}


def _part(folder: Path, plan: Mapping[str, Any], part: str, records: Sequence[Record], lines: Sequence[Line]) -> dict[str, Any]:
    """What the page shows of one part."""
    runs, length = runs_of(plan, part), plan["data"][part]["length"]
    table = frame([r for r in records if r.part == part])
    ledgers = {model: _ledger(folder, run, length) for model, run in runs.items()}
    return {
        "name": part,
        "data": plan["data"][part],
        "models": list(runs),
        "runs": runs,
        "lines": [line for line in lines if line.part == part],
        "pictures": [as_html(picture) for picture in _pictures(plan, part, table, list(runs), length)],
        "ledgers": {model: costs for model, costs in ledgers.items() if costs is not None},
    }


def _pictures(plan: Mapping[str, Any], part: str, table: Any, models: Sequence[str], length: int) -> list[Picture]:
    """Those of every measure, and the training's."""
    drawn: list[Picture] = []
    for name, measure in plan["measures"].get(part, {}).items():
        drawn += pictures(measure, name, table[table["measure"] == name], models, length)
    svg = plots.training(table[table["measure"] == "training"], models, "nats a label")
    return [*drawn, Picture("Training", "Loss of the training batches; thin lines are seeds.", svg)]


def _ledger(folder: Path, run: Mapping[str, Any], length: int) -> dict[str, Any] | None:
    """A run's ledger as zoo.ledger has it, from plan.json, or else from its config.yaml; None where there is neither."""
    path = _run_folder(folder, run) / "config.yaml"
    if "ledger" in run:
        costs: dict[str, Any] = run["ledger"]
        return costs
    return ledger(load_model(load_yaml(path)["model"]), length).as_dict() if path.is_file() else None
