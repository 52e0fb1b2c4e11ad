"""What the command line prints of blocks, models, tasks, measures, plans and ledgers."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from blocks.base import Cost
from blocks.catalogue import block_types, config_class
from zoo.config.model import ModelConfig, load_model
from zoo.config.schema import load_yaml
from zoo.ledger.ledger import Ledger, ledger
from zoo.ledger.published import read_published

if TYPE_CHECKING:  # a list needs neither
    from train.bench.probe import Gain
    from train.plan.plan import Plan

CONFIGS = Path(__file__).parents[2] / "configs"
PREFIXES = ("", "k", "M", "G", "T", "P", "E")
OFF_BUDGET = 0.05  # share by which whole steps may miss a budget before it is said
WIDE = 110  # columns from which a line has room for a summary


def first_line(text: str | None) -> str:
    """The first line of a docstring."""
    return (text or "").strip().split("\n")[0]


def blocks() -> list[dict[str, Any]]:
    """The blocks of the house."""
    rows = []
    for name in block_types():
        cls = config_class(name)
        summary = first_line(importlib.import_module(f"blocks.{name}").__doc__)
        rows.append({"type": name, "kind": cls.kind, "causal": cls.causal, "paper": cls.paper, "summary": summary})
    return rows


def models(length: int | None = None) -> list[dict[str, Any]]:
    """The model configs that come with the house: parameters, those that one token meets, those published of it and whether ours agree
    (null: not a published model), and the family of transformers' classes that each is compared with in the tests (null: none). With a
    length the ledger's cost of one sequence of so many tokens, null where the model has fewer positions."""
    from zoo.convert.families import of_models

    rows, families = [], of_models()
    for path in sorted((CONFIGS / "models").rglob("*.yaml"), key=lambda path: (path.parent, path.name)):
        values = load_yaml(path)
        config, published = load_model(values), read_published(values)
        total = ledger(config, 1).total
        row = {"path": str(path.relative_to(CONFIGS.parent)), "parameters": total.params, "active_parameters": total.active_params}
        row["published"] = published.as_dict(total.params) if published else None
        row["oracle"] = families.get(path.stem)
        if length is not None:
            row |= _costs(config, length)
        rows.append(row | {"summary": _first_comment(path)})
    return rows


def _costs(config: ModelConfig, length: int) -> dict[str, int | None]:
    """Forward FLOPs a token, and the float32 bytes of state and cache after `length` tokens, in all and a token."""
    if config.positions is not None and length > config.positions:
        return {"flops_per_token": None, "state_bytes": None, "state_bytes_per_token": None}
    cost = ledger(config, length)
    averages = {"flops_per_token": round(cost.flops / length), "state_bytes_per_token": round(cost.state_bytes / length)}
    return {"state_bytes": cost.state_bytes, **averages}


def experiments() -> list[dict[str, Any]]:
    """The experiments that come with the house."""
    return _yaml_files(CONFIGS / "experiments")


def claims() -> list[dict[str, Any]]:
    """The claims that come with the house, each with the verdict of its last run here (runs/NAME), if there was one."""
    from train.claims.verdict import read_verdict

    rows = []
    for path in sorted((CONFIGS / "claims").glob("*.yaml")):
        values = load_yaml(path)
        about, found = values["claim"], read_verdict(Path("runs") / values["name"])
        place, last = str(path.relative_to(CONFIGS.parent)), found["verdict"] if found else "not run"
        rows.append({"path": place, "finding": about["finding"], "paper": about["paper"], "verdict": last})
    return rows


def tasks() -> list[dict[str, Any]]:
    """The generated tasks."""
    from zoo.tasks import TASKS

    return [{"task": name, "summary": module.SUMMARY} for name, module in TASKS.items()]


def measures() -> list[dict[str, Any]]:
    """The measures."""
    from zoo.measures import MEASURES

    return [{"measure": name, "summary": module.SUMMARY} for name, module in MEASURES.items()]


def environment(found: dict[str, Any]) -> None:
    """Print where we are and what was set at start-up."""
    console = Console(highlight=False)
    console.print(f"{found['cpu']}, {found['cores']} physical cores, bfloat16: {found['bfloat16']}; GPU: {found['gpu'] or 'none'}")
    versions = ", ".join(f"{name} {number or 'not installed'}" for name, number in found["versions"].items())
    console.print(f"Python {found['python']}, {versions}\n")
    table = Table(box=None, header_style="bold")
    for heading in ("setting", "in force", "why", "switch"):
        table.add_column(heading, overflow="fold")
    for row in found["settings"]:
        table.add_row(row["name"], row["value"], row["why"], row["switch"])
    console.print(table)


def gain(found: Gain) -> None:
    """Print what a choice gains, as soon as it is measured."""
    from train.bench.probe import PROBE

    Console(highlight=False).print(f"{found.choice:<26} {found.ratio:5.2f}x as fast as {found.beside}: training step, {PROBE.shape}")


def _yaml_files(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for path in sorted(folder.rglob("*.yaml")):
        rows.append({"path": str(path.relative_to(CONFIGS.parent)), "summary": _first_comment(path)})
    return rows


def _first_comment(path: Path) -> str:
    """The paragraph of comment that a YAML begins with."""
    lines = itertools.takewhile(lambda line: line.startswith("# "), path.read_text(encoding="utf-8").splitlines())
    return " ".join(line.removeprefix("# ") for line in lines)


def table(title: str, rows: list[dict[str, Any]]) -> None:
    """A list of equal rows as a table."""
    made = Table(title=title, title_justify="left", box=None, header_style="bold")
    for key in rows[0] if rows else ():
        made.add_column(key, overflow="fold")
    for row in rows:
        made.add_row(*(str(value) for value in row.values()))
    Console().print(made)
    Console().print()


def show_models(rows: list[dict[str, Any]], length: int | None) -> None:
    """The models as a table a folder and a line each, sizes in units that read well."""
    console = Console()
    for folder, members in itertools.groupby(rows, lambda row: str(Path(row["path"]).parent)):
        console.print(_models_table(folder, list(members), length, summaries=console.width >= WIDE))
        console.print()
    console.print("active: the parameters that one token meets, of experts those that it chose; the embedding counts whole")
    console.print(
        "published: whether ours is the checkpoint's or the paper's count, exactly or to its digits (with what the file lists apart)"
    )
    console.print("oracle: the family of transformers' classes that the model is compared with in the tests")
    if length is not None:
        console.print(
            f"{length:,} tokens: forward FLOPs a token, averaged over all; bytes of state and cache after the last, in float32, of one"
            " sequence; - where the model has fewer positions"
        )
    console.print()


def _models_table(folder: str, rows: list[dict[str, Any]], length: int | None, *, summaries: bool) -> Table:
    made = Table(title=f"{folder}/", title_justify="left", box=None, header_style="bold", expand=summaries)
    made.add_column("model", no_wrap=True)
    for heading in ("parameters", "active", "published"):
        made.add_column(heading, justify="right", no_wrap=True)
    made.add_column("oracle", no_wrap=True)
    for heading in () if length is None else ("FLOPs/token", "state", "/token"):
        made.add_column(heading, justify="right", no_wrap=True)
    if summaries:
        made.add_column("summary", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        total, active = row["parameters"], row["active_parameters"]
        cells = [Path(row["path"]).stem, _count(total), _count(active) if active != total else "", _published(row["published"])]
        costs = () if length is None else (row["flops_per_token"], row["state_bytes"], row["state_bytes_per_token"])
        cells += [row["oracle"] or "", *(_short(n, unit) for n, unit in zip(costs, ("", "B", "B"), strict=False))]
        made.add_row(*cells, *([row["summary"]] if summaries else []))
    return made


def _published(found: dict[str, Any] | None) -> str:
    """How our count stands to the published one: exact, = 9.78B, or not 1.5B."""
    if found is None:
        return ""
    count = found["parameters"]
    if not found["agrees"]:
        return f"not {count if isinstance(count, str) else _count(count)}"
    return f"= {count}" if isinstance(count, str) else "exact"


def _count(number: int) -> str:
    """Three digits and the unit of parameter counts: 741K, 9.78B."""
    return _short(number, "").replace(" ", "").replace("k", "K").replace("G", "B")


def _short(number: int | None, unit: str) -> str:
    """Three digits with a decimal prefix: 8.65 G, 512 kB."""
    if number is None:
        return "-"
    power = min(max(0, (len(f"{float(f'{number:.3g}'):.0f}") - 1) // 3), len(PREFIXES) - 1)
    return f"{number / 1000**power:#.3g}".rstrip(".") + f" {PREFIXES[power]}{unit}" if power else f"{number} {unit}"


def show(name: str, config: ModelConfig, rows: Ledger) -> None:
    """The ledger of a model, a row a layer."""
    made = Table(title=f"{name}: d_model {config.d_model}, {config.pattern}", title_justify="left", box=None, header_style="bold")
    for heading in ("", "block", "type"):
        made.add_column(heading)
    for heading in ("parameters", f"FLOPs, {rows.length} tokens", "executed FLOPs", "state bytes"):
        made.add_column(heading, justify="right")
    for row in rows.rows:
        made.add_row("" if row.index is None else str(row.index), row.name, row.type, *_cells(row.cost))
    made.add_row("", "total", "", *_cells(rows.total), style="bold")
    console = Console()
    console.print(made)
    console.print(
        f"\nwithout the embedding {rows.params_non_embedding:,} parameters; active (what one token meets, of experts those that it chose)"
        f" {rows.active_params:,}; training {rows.flops_train:,} FLOPs a sequence\n"
        "FLOPs: forward, one sequence, multiply-add = 2, what the mathematics needs (executed: what the chunked kernels spend)."
    )


def _cells(cost: Cost) -> list[str]:
    return [f"{n:,}" for n in (cost.params, cost.flops, cost.executed_flops, cost.state_bytes)]


def plan(made: Plan) -> None:
    """The runs of an experiment, a row a model and part."""
    from train.data import reading_lines

    config, values = made.experiment.config, made.as_dict()
    rule = values["match"]
    console = Console()
    for part, source in made.sources.items():
        title = f"{config.name}, {part}: {source.label}, {source.length} tokens, seeds {', '.join(str(s) for s in config.seeds)}"
        table_ = Table(title=title, title_justify="left", box=None, header_style="bold")
        table_.add_column("model")
        for heading in ("parameters", "training FLOPs of a run", "mismatch", "steps", "tokens", "lr", "state bytes", "sizes found"):
            table_.add_column(heading, justify="right")
        for run in (r for r in made.runs if r.part == part and r.seed == config.seeds[0]):
            sizes = ", ".join(f"{key} = {size}" for key, size in run.sizes.items()) or "as given"
            numbers = (f"{run.params:,}", f"{run.flops_train:.4g}", f"{run.mismatch:+.2%}", f"{run.config.steps:,}", f"{run.tokens:,}")
            table_.add_row(run.model, *numbers, f"{run.config.train.lr:g}", f"{run.state_bytes:,}", sizes)
        console.print(table_)
        for run in (r for r in made.runs if r.part == part and r.seed == config.seeds[0]):
            for name, spent in (("tokens", run.tokens), ("flops", run.flops_train)):
                asked = getattr(run.config.budget, name)
                if asked is not None and abs(spent / asked - 1) > OFF_BUDGET:
                    console.print(
                        f"  budget: {run.model} spends {spent:,} {name}, not {asked:g}: whole steps, at least one", highlight=False
                    )
        for line in reading_lines(source):
            console.print(f"  data: {line}", style="dim", highlight=False, markup=False)
        console.print()
    for line in made.starts():
        console.print(line, highlight=False)
    console.print(f"{len(made.runs)} runs; matched on {rule['axis']} within {rule['tolerance']:.1%}, worst mismatch {rule['worst']:.2%}")
