"""What the command line prints of lists, plans, ledgers and this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

OFF_BUDGET = 0.05  # share by which whole steps may miss a budget before it is said

if TYPE_CHECKING:  # these import torch, a list needs none
    from blocks.base import Cost
    from train.bench.probe import Gain
    from train.plan.plan import Plan
    from zoo.config.model import ModelConfig
    from zoo.ledger.ledger import Ledger


def listing(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows of equal keys as a table."""
    lines = Table(title=title, title_justify="left", box=None, header_style="bold")
    for key in rows[0] if rows else ():
        lines.add_column(key, overflow="fold")
    for row in rows:
        lines.add_row(*(str(value) for value in row.values()))
    Console().print(lines)
    Console().print()


def environment(machine: dict[str, Any]) -> None:
    """Print the machine, the versions of libraries and the settings made at start-up."""
    console = Console(highlight=False)
    console.print(f"{machine['cpu']}, {machine['cores']} physical cores, bfloat16: {machine['bfloat16']}; GPU: {machine['gpu'] or 'none'}")
    versions = ", ".join(f"{name} {number or 'not installed'}" for name, number in machine["versions"].items())
    console.print(f"Python {machine['python']}, {versions}\n")
    settings = Table(box=None, header_style="bold")
    for heading in ("setting", "in force", "why", "switch"):
        settings.add_column(heading, overflow="fold")
    for row in machine["settings"]:
        settings.add_row(row["name"], row["value"], row["why"], row["switch"])
    console.print(settings)


def gain(measured: Gain) -> None:
    """Print what a choice gains, as soon as it is measured."""
    from train.bench.probe import PROBE

    line = f"{measured.choice:<26} {measured.ratio:5.2f}x as fast as {measured.beside}: training step, {PROBE.shape}"
    Console(highlight=False).print(line)


def show(name: str, config: ModelConfig, rows: Ledger) -> None:
    """Print the ledger of a model, a row a layer."""
    layers = Table(title=f"{name}: d_model {config.d_model}, {config.pattern}", title_justify="left", box=None, header_style="bold")
    for heading in ("", "block", "type"):
        layers.add_column(heading)
    for heading in ("parameters", f"FLOPs, {rows.length} tokens", "executed FLOPs", "state bytes"):
        layers.add_column(heading, justify="right")
    for row in rows.rows:
        layers.add_row("" if row.index is None else str(row.index), row.name, row.type, *_cells(row.cost))
    layers.add_row("", "total", "", *_cells(rows.total), style="bold")
    console = Console()
    console.print(layers)
    console.print(
        f"\nwithout the embedding {rows.params_non_embedding:,} parameters; active (met by one token)"
        f" {rows.active_params:,}; training {rows.flops_train:,} FLOPs a sequence\n"
        "FLOPs: forward, one sequence, multiply-add = 2, what the mathematics needs (executed: what the chunked kernels spend)."
    )


def _cells(cost: Cost) -> list[str]:
    return [f"{n:,}" for n in (cost.params, cost.flops, cost.executed_flops, cost.state_bytes)]


def plan(planned: Plan) -> None:
    """Print the runs of an experiment, a table a part and a row a model."""
    from train.data import reading_lines

    rule = planned.as_dict()["match"]
    console = Console()
    for part in planned.sources:
        console.print(_runs(planned, part))
        for line in [*_off_budget(planned, part), *(f"data: {line}" for line in reading_lines(planned.sources[part]))]:
            console.print(f"  {line}", style="dim", highlight=False, markup=False)
        console.print()
    for line in planned.starts():
        console.print(line, highlight=False)
    console.print(f"{len(planned.runs)} runs; matched on {rule['axis']} within {rule['tolerance']:.1%}, worst mismatch {rule['worst']:.2%}")


def _runs(planned: Plan, part: str) -> Table:
    """The runs of a part, those of the first seed: the others differ in nothing that is shown."""
    config, source = planned.experiment.config, planned.sources[part]
    title = f"{config.name}, {part}: {source.label}, {source.length} tokens, seeds {', '.join(str(s) for s in config.seeds)}"
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    table.add_column("model")
    for heading in ("parameters", "training FLOPs of a run", "mismatch", "steps", "tokens", "lr", "state bytes", "matched sizes"):
        table.add_column(heading, justify="right")
    for run in (r for r in planned.runs if r.part == part and r.seed == config.seeds[0]):
        sizes = ", ".join(f"{key} = {size}" for key, size in run.sizes.items()) or "as given"
        numbers = (f"{run.params:,}", f"{run.flops_train:.4g}", f"{run.mismatch:+.2%}", f"{run.config.steps:,}", f"{run.tokens:,}")
        table.add_row(run.model, *numbers, f"{run.config.train.lr:g}", f"{run.state_bytes:,}", sizes)
    return table


def _off_budget(planned: Plan, part: str) -> list[str]:
    """A line for each model whose whole steps miss what the budget asks for."""
    lines = []
    for run in (r for r in planned.runs if r.part == part and r.seed == planned.experiment.config.seeds[0]):
        for name, spent in (("tokens", run.tokens), ("flops", run.flops_train)):
            budget = getattr(run.config.budget, name)
            if budget is not None and abs(spent / budget - 1) > OFF_BUDGET:
                lines.append(f"budget: {run.model} spends {spent:,} {name}, not {budget:g}: whole steps, at least one")
    return lines
