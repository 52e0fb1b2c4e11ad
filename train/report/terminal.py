"""The summary of a finished experiment on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from train.report.page import measure_types, read_experiment, runs_of
from train.report.summary_table import summary

NUMBERS = {"training FLOPs": ("flops_train", ".3g"), "parameters": ("params", ","), "state bytes": ("state_bytes", ",")}  # of every model


def print_table(folder: Path) -> None:
    """A table a part."""
    plan, records = read_experiment(folder)
    lines = summary(records, measure_types(plan), plan["match"]["reference"])
    console = Console()
    for part, data in plan["data"].items():
        runs = runs_of(plan, part)
        table = Table(title=f"{part}: {data['label']}", title_justify="left", box=None, header_style="bold", pad_edge=False)
        table.add_column("")
        for model in runs:
            table.add_column(model, justify="right", no_wrap=True)
        for title, (key, form) in NUMBERS.items():
            table.add_row(title, *(format(run[key], form) for run in runs.values()), style="dim")
        for line in lines:
            if line.part == part:
                cells = (line.cells[model].text(line.scale) if model in line.cells else "" for model in runs)
                table.add_row(f"{line.measure}, {line.title}: {line.unit}", *cells)
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
