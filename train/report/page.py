"""report.html: one self-contained page of an experiment's folder. Every number and picture comes from plan.json and results.csv."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup
from rich.console import Console
from rich.table import Table

from blocks.errors import ConfigError
from train.claims.verdict import read_verdict
from train.measure.results import Record, frame, read
from train.report import claim_text, plots
from train.report.claim_figures import statement_svg
from train.report.figures import PICTURES, Picture
from train.report.summary_table import Column, columns
from zoo.config.model import ModelConfig
from zoo.convert.model_folder import load
from zoo.ledger.ledger import ledger

FILES = ("plan.json", "results.csv")


def build_report(folder: str | Path) -> Path:
    """Write report.html from what the folder holds. Raises ConfigError where it is not a finished experiment."""
    folder = Path(folder)
    plan, records = _read(folder)
    kinds = measure_kinds(plan)
    found = columns(records, kinds, plan["match"]["reference"])
    page = Environment(loader=PackageLoader("train.report"), autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True)
    html = page.get_template("report.html").render(
        plan=plan,
        claim=_claim(folder),
        parts=[_part(folder, plan, name, records, kinds, found) for name in plan["data"]],
        environment=json.loads((_a_run(folder, plan) / "environment.json").read_text(encoding="utf-8")),
        seconds=_seconds(folder),
        seeds=sorted({run["seed"] for run in plan["runs"]}),
    )
    out = folder / "report.html"
    out.write_text(html, encoding="utf-8")
    return out


def print_table(folder: Path) -> None:
    """The headline on the terminal, a table a part."""
    plan, records = _read(folder)
    found = columns(records, measure_kinds(plan), plan["match"]["reference"])
    console = Console()
    for part in plan["data"]:
        mine = [c for c in found if c.part == part]
        models = list(dict.fromkeys(run["model"] for run in plan["runs"] if run["part"] == part))
        table = Table(title=f"{part}: {plan['data'][part]['label']}", title_justify="left", box=None, header_style="bold", pad_edge=False)
        table.add_column("")
        for model in models:
            table.add_column(model, justify="right", no_wrap=True)
        table.add_row("training FLOPs", *(f"{_run(plan, part, m)['flops_train']:.3g}" for m in models), style="dim")
        table.add_row("parameters", *(f"{_run(plan, part, m)['params']:,}" for m in models), style="dim")
        table.add_row("state bytes", *(f"{_run(plan, part, m)['state_bytes']:,}" for m in models), style="dim")
        for c in mine:
            table.add_row(f"{c.measure}, {c.title}: {c.unit}", *(c.cells[m].text(c.scale) if m in c.cells else "" for m in models))
        console.print(table)
        console.print()
    console.print(_legend(plan), style="dim")


def _legend(plan: Mapping[str, Any]) -> str:
    seeds = len({run["seed"] for run in plan["runs"]})
    rule = plan["match"]
    spread = f"± is half the 95 % interval over {seeds} seeds; * differs from {rule['reference']} (paired over seeds)."
    return (
        f"{spread if seeds > 1 else 'One seed: no intervals, and no difference that can be trusted.'}\n"
        f"Matched on {rule['axis']} within {rule['tolerance']:.1%}; the worst mismatch is {rule['worst']:.2%}."
    )


def _read(folder: Path) -> tuple[dict[str, Any], list[Record]]:
    for name in FILES:
        if not (folder / name).is_file():
            raise ConfigError(str(folder / name), None, "there is no such file", "is this the folder of a finished `zoo run`?")
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    if plan["match"]["worst"] > plan["match"]["tolerance"]:
        raise ConfigError(str(folder), plan["match"]["worst"], "its members differ by more than the tolerance: not a comparison")
    return plan, read(folder / "results.csv")


def measure_kinds(plan: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """(part, measure's name) -> the measure's type, in the experiment's order."""
    return {(part, name): kind for part, measures in plan["measures"].items() for name, kind in measures.items()}


def _run(plan: Mapping[str, Any], part: str, model: str) -> dict[str, Any]:
    return next(run for run in plan["runs"] if run["part"] == part and run["model"] == model)


def _a_run(folder: Path, plan: Mapping[str, Any]) -> Path:
    run = plan["runs"][0]
    return folder / run["part"] / f"{run['model']}-seed{run['seed']}"


def _seconds(folder: Path) -> dict[str, Any] | None:
    path = folder / "timing.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _claim(folder: Path) -> dict[str, Any] | None:
    """The verdict with its numbers as text and its pictures; None where the experiment makes no claim."""
    verdict = read_verdict(folder)
    if verdict is None:
        return None
    rows = [
        {**row, "value": claim_text.number(row["estimate"]), "interval": claim_text.interval(row), "threshold": claim_text.threshold(row)}
        for row in verdict["statements"]
    ]
    pictures = [Markup(statement_svg(row)) for row in rows]  # our own SVG
    return {**verdict, "statements": rows, "pictures": pictures, "time": claim_text.seconds(verdict)}


def _part(
    folder: Path, plan: Mapping[str, Any], part: str, records: list[Record], kinds: Mapping[tuple[str, str], str], found: list[Column]
) -> dict[str, Any]:
    """What the page shows of one part."""
    models = list(dict.fromkeys(run["model"] for run in plan["runs"] if run["part"] == part))
    mine = [r for r in records if r.part == part]
    table = frame(mine)
    length = plan["data"][part]["length"]
    pictures: list[Picture] = []
    for (owner, name), kind in kinds.items():
        if owner == part:
            pictures += PICTURES[kind].pictures(name, table[table["measure"] == name], models, length)
    training = table[table["measure"] == "training"]
    pictures.append(
        Picture("Training", "Loss of the training batches; thin lines are seeds.", plots.training(training, models, "nats a label"))
    )
    return {
        "name": part,
        "data": plan["data"][part],
        "models": models,
        "runs": {m: _run(plan, part, m) for m in models},
        "columns": [c for c in found if c.part == part],
        "pictures": [(title, text, Markup(picture)) for title, text, picture in pictures],  # our own SVG
        "ledgers": {m: ledger(_config(folder, plan, part, m), length) for m in models},
    }


def _config(folder: Path, plan: Mapping[str, Any], part: str, model: str) -> ModelConfig:
    run = _run(plan, part, model)
    return load(folder / part / f"{model}-seed{run['seed']}").config
