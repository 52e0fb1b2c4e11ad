"""`zoo list models`: sizes and costs of the models that come with the zoo, from the ledger alone: none is built."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from train.cli.configs import first_comment, model_paths, shown
from zoo.config.model import ModelConfig, load_model
from zoo.config.schema import load_yaml
from zoo.convert.families import of_models
from zoo.ledger.ledger import ledger
from zoo.ledger.published import read_published

PREFIXES = ("", "k", "M", "G", "T", "P", "E")
WIDE = 110  # columns from which a line has room for a summary


def rows(length: int | None = None) -> list[dict[str, Any]]:
    """The model configs that come with the zoo, a row each: parameters; active parameters (those that one token meets); the published
    count and whether the zoo's agrees with it (null: not a published model); the family of transformers' classes that it is compared
    with in the tests (null: none). With a length also the cost of one sequence of so many tokens, null where the model has fewer
    positions."""
    lines, families = [], of_models()
    for path in model_paths():
        values = load_yaml(path)
        config, published = load_model(values), read_published(values)
        total = ledger(config, 1).total
        row = {"path": shown(path), "parameters": total.params, "active_parameters": total.active_params}
        row["published"] = published.as_dict(total.params) if published else None
        row["oracle"] = families.get(path.stem)
        if length is not None:
            row |= _costs(config, length)
        lines.append(row | {"summary": first_comment(path)})
    return lines


def _costs(config: ModelConfig, length: int) -> dict[str, int | None]:
    """Forward FLOPs a token, and the float32 bytes of state and cache after `length` tokens, in all and a token."""
    if config.positions is not None and length > config.positions:
        return {"flops_per_token": None, "state_bytes": None, "state_bytes_per_token": None}
    cost = ledger(config, length)
    averages = {"flops_per_token": round(cost.flops / length), "state_bytes_per_token": round(cost.state_bytes / length)}
    return {"state_bytes": cost.state_bytes, **averages}


def show(lines: list[dict[str, Any]], length: int | None) -> None:
    """Print the models, a table a folder and a line a model, sizes in units that read well."""
    console = Console()
    for folder, models in itertools.groupby(lines, lambda row: str(Path(row["path"]).parent)):
        console.print(_table(folder, list(models), length, summaries=console.width >= WIDE))
        console.print()
    console.print("active: the parameters that one token meets: of experts those that it is sent to, and the whole embedding")
    console.print(
        "published: whether the zoo's count is the checkpoint's or the paper's, exactly or to its digits (parameters that the file lists"
        " apart are added)"
    )
    console.print("oracle: the family of transformers' classes that the model is compared with in the tests")
    if length is not None:
        console.print(
            f"{length:,} tokens: forward FLOPs a token, averaged over all; bytes of state and cache after the last, in float32, of one"
            " sequence; - where the model has fewer positions"
        )
    console.print()


def _table(folder: str, lines: list[dict[str, Any]], length: int | None, *, summaries: bool) -> Table:
    table = Table(title=f"{folder}/", title_justify="left", box=None, header_style="bold", expand=summaries)
    table.add_column("model", no_wrap=True)
    for heading in ("parameters", "active", "published"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("oracle", no_wrap=True)
    for heading in () if length is None else ("FLOPs/token", "state", "/token"):
        table.add_column(heading, justify="right", no_wrap=True)
    if summaries:
        table.add_column("summary", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in lines:
        total, active = row["parameters"], row["active_parameters"]
        cells = [Path(row["path"]).stem, _count(total), _count(active) if active != total else "", _published(row["published"])]
        costs = () if length is None else (row["flops_per_token"], row["state_bytes"], row["state_bytes_per_token"])
        cells += [row["oracle"] or "", *(_short(n, unit) for n, unit in zip(costs, ("", "B", "B"), strict=False))]
        table.add_row(*cells, *([row["summary"]] if summaries else []))
    return table


def _published(published: dict[str, Any] | None) -> str:
    """How the zoo's count stands to the published one: exact, = 9.78B, or not 1.5B."""
    if published is None:
        return ""
    count = published["parameters"]
    if not published["agrees"]:
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
