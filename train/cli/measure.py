"""`zoo measure`: any measures of a trained run, a checkpoint or an imported model, kept in its folder and drawn on a page.

    zoo measure RUN collapse state                                  on the run's own data
    zoo measure RUN collapse times=64 model.blocks.M.retention=0.9999
    zoo measure IMPORTED collapse data.kind=text data.corpus=sotu train_length=2048
    zoo measure owner/name recall collapse --out FOLDER             a folder of Hugging Face or a hub id, as it is

`model.KEY` changes the model where the weights allow it, `data.KEY` the data, `seed` the examples; MEASURE.KEY or KEY a measure's fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress as RichProgress
from rich.progress import TaskID, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from blocks.errors import ConfigError, require
from train.measure.measure import measure, measured
from train.measure.target import Target, complete, open_target
from train.report.measures_page import write_measures_page
from zoo.config.schema import dotted, merge
from zoo.measures import MEASURES
from zoo.measures.shared.base import MeasureConfig, ResumeStore, Row

LINES = 40  # of a table on the terminal
SUBJECT = ("model", "data", "seed", "train_length")  # overrides that no measure reads as its own field


def measure_subject(path: str | Path, names: list[str], overrides: list[str], out: str | Path | None = None) -> Path:
    """Measure, print and keep the rows, draw measures.html; what was measured before with the same settings is not measured again.

    path, out: see train.measure.target."""
    names = names or ["loss"]
    for name in names:
        require(name in MEASURES, "measure", name, "no such measure", f"Measures: {', '.join(MEASURES)}")
    changes = dotted(overrides)
    subject = open_target(path, {key: changes.pop(key) for key in SUBJECT if key in changes}, out)
    own = {name: changes.pop(name) for name in names if isinstance(changes.get(name), Mapping)}
    subject, configs = complete(subject, {name: merge(changes, own.get(name, {})) for name in names})
    console, found = Console(), {}
    for line in subject.assumed:
        console.print(f"assumed: {line}", highlight=False, soft_wrap=True)
    _writable(subject.folder)
    for kind, config in configs.items():
        found[kind] = _rows(subject, kind, config)
        _print(console, kind, found[kind])
    page = write_measures_page(subject, found)
    console.print(f"all rows and pictures: {page}", highlight=False, soft_wrap=True)
    return page


def _writable(folder: Path) -> None:
    """Raise ConfigError now, not after the work."""
    try:
        (folder / "measures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(str(folder), None, f"rows can't be kept here: {error}", "--out FOLDER") from None


def _rows(subject: Target, kind: str, config: MeasureConfig) -> list[Row]:
    columns = (*RichProgress.get_default_columns()[:2], TimeElapsedColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        told = partial(_told, bar, bar.add_task(kind, total=None))

        def work(keep: ResumeStore) -> list[Row]:
            return measure(subject.model, subject.data, kind, config, subject.seed, told, keep)

        changes = {"model": subject.changes, "data": subject.data} if subject.changed else {}
        changes |= {"weights": subject.weights} if subject.weights is not None else {}
        return measured(subject.folder, kind, kind, config, subject.seed, work, changes)


def _told(bar: RichProgress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _print(console: Console, kind: str, rows: list[Row]) -> None:
    """The headline; the page has all rows."""
    chosen = {headline.metric for headline in MEASURES[kind].HEADLINE}
    shown = [row for row in rows if row.metric in chosen] or rows
    table = Table(title=f"{kind}, {len(rows)} rows", title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("condition", overflow="fold")
    table.add_column("metric", no_wrap=True)
    for heading in ("value", "95 % interval", "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in shown[:LINES]:
        table.add_row(str(row.condition), row.metric, f"{row.value:.4g}", f"{row.low:.4g} .. {row.high:.4g}", str(row.n))
    console.print(table)
    if len(shown) > LINES:
        console.print(f"... and {len(shown) - LINES} more", style="dim")
    console.print()
