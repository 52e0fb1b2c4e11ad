"""A verdict as text: the terminal's table, the report's section, the markdown of several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def number(value: float | None) -> str:
    """Three digits; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def interval(row: Mapping[str, Any]) -> str:
    """`[0.91, 0.97]`; a dash for an end that is open or not known."""
    return f"[{number(row['low'])}, {number(row['high'])}]"


def threshold(row: Mapping[str, Any]) -> str:
    """`above 0.9`."""
    return ", ".join(f"{key} {number(row[key])}" for key in ("above", "below") if row[key] is not None)


def seconds(verdict: Mapping[str, Any]) -> str:
    """The wall time of the whole experiment."""
    timing = verdict["timing"]
    return f"{timing['seconds']:.0f} s, {timing['workers']} runs beside each other"


def print_verdict(verdict: Mapping[str, Any]) -> None:
    """On the terminal."""
    title = f"claim: {verdict['finding']} ({verdict['paper']})"
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("statement", overflow="fold")
    for heading in ("estimate", "95 % interval", "threshold", "verdict"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in verdict["statements"]:
        notes = "".join(f"\n{note}" for note in row["notes"])
        table.add_row(f"{row['text']}: {row['unit']}{notes}", number(row["estimate"]), interval(row), threshold(row), row["verdict"])
    console = Console()
    console.print(table)
    console.print(f"\nscaled down: {verdict['scaled']}", style="dim", highlight=False)
    console.print(f"verdict: {verdict['verdict']}", style="bold", highlight=False)


def markdown_row(verdict: Mapping[str, Any], figure: str) -> str:
    """A row of the table of claims."""
    said = "<br>".join(
        f"{row['text']}: {number(row['estimate'])} {interval(row)} {row['unit']} ({threshold(row)}): {row['verdict']}"
        for row in verdict["statements"]
    )
    finding = f"{verdict['finding']} ({verdict['paper']})"
    cells = (finding, f"**{verdict['verdict']}**", said, f"{verdict['timing']['seconds']:.0f} s", f"[figure]({figure})")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


HEADING = "| claim | verdict | statements: estimate, 95 % interval over seeds (threshold) | wall time | |\n| --- | --- | --- | --- | --- |"
