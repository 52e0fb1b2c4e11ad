"""`zoo run`: every planned run trained and measured, several beside each other, then the results and the report. Resumable."""

from __future__ import annotations

import csv
import math
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.managers import SyncManager
from pathlib import Path
from queue import Empty

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from train.claims.verdict import conclude
from train.experiment import Experiment
from train.failure import ExperimentFailed
from train.files import write_json
from train.measuring import measured
from train.plan import Plan, make_plan
from train.planned import PlannedRun
from train.results import Record, joined, record, write
from train.worker import Event, Failed, end_with_parent, execute, set_up
from zoo.measures.base import Keeper, Row

CURVE_POINTS = 60  # of a training curve in results.csv


def run_experiment(experiment: Experiment, out: str | Path | None = None, *, workers: int | None = None, threads: int = 1) -> Path:
    """Plan, train what is not yet trained, measure what is not yet measured, write results.csv. The experiment's folder.

    workers: runs beside each other, default one a core (one if there is a GPU); threads: of each. A run's numbers depend on
    `threads` alone. Raises ConfigError, ExperimentFailed.
    """
    plan = make_plan(experiment)
    folder = Path(out) if out is not None else Path("runs") / experiment.config.name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "plan.json", plan.as_dict())
    for line in plan.starts():
        Console(stderr=True).print(line, highlight=False)
    start, trained = time.monotonic(), _unfinished(plan, folder)
    failures = _execute(plan, folder, workers or _default_workers(threads), threads)
    if failures:
        raise ExperimentFailed([f.message for f in failures], max(f.exit_code for f in failures))
    records = collect(plan, folder)
    write(folder / "results.csv", [*records, *joined(records)])
    if trained or not (folder / "timing.json").exists():
        timing = {"seconds": round(time.monotonic() - start, 1), "workers": workers or _default_workers(threads), "threads": threads}
        write_json(folder / "timing.json", timing)
    conclude(plan, folder)
    return folder


def _unfinished(plan: Plan, folder: Path) -> bool:
    """Whether anything is left to train."""
    return not all((run_folder(folder, run) / "summary.json").exists() for run in plan.runs)


def run_folder(folder: Path, run: PlannedRun) -> Path:
    """Where a run of the experiment in `folder` is kept."""
    return folder / run.part / f"{run.model}-seed{run.seed}"


def collect(plan: Plan, folder: Path) -> list[Record]:
    """Every row of every run: its training curve and its measures."""
    records = []
    for run in plan.runs:
        own, name = run_folder(folder, run), plan.experiment.config.name
        for row in _training_rows(own):
            records.append(record(name, run.part, run.model, run.seed, "training", row))
        for measure, (kind, config) in run.measures.items():
            for row in measured(own, measure, kind, config, run.seed, _missing):
                records.append(record(name, run.part, run.model, run.seed, measure, row))
    return records


def _missing(keep: Keeper) -> list[Row]:
    raise RuntimeError("a measure has no rows: its run is not finished")


def _training_rows(folder: Path) -> Iterator[Row]:
    """The loss of some steps, the same ones in every run of the same length."""
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    stride = max(1, math.ceil(len(lines) / CURVE_POINTS))
    for line in lines[stride - 1 :: stride]:
        condition = f"step={line['step']};flops={line['flops']}"
        yield Row(condition, "loss", float(line["loss"]), math.nan, math.nan, 1)


def _default_workers(threads: int) -> int:
    import torch

    return 1 if torch.cuda.is_available() else max(1, (os.cpu_count() or 1) // threads)


def _execute(plan: Plan, folder: Path, workers: int, threads: int) -> list[Failed]:
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read by the workers before they import torch
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    context = multiprocessing.get_context("spawn")
    manager = SyncManager(ctx=context)
    manager.start(end_with_parent, (os.getpid(),))  # it would outlive a parent that is killed
    with manager, ProcessPoolExecutor(workers, context, set_up, (threads, os.getpid())) as pool:
        queue = manager.Queue()
        order = sorted(range(len(plan.runs)), key=lambda i: -plan.runs[i].flops_train)  # the longest first: no core waits at the end
        futures = {i: pool.submit(execute, i, plan.runs[i], run_folder(folder, plan.runs[i]), queue) for i in order}
        try:
            with Drawing(plan) as drawing:
                _watch(futures, queue, drawing)
        except KeyboardInterrupt:
            for process in list((pool._processes or {}).values()):
                process.kill()
            raise
        return [found for i in order if (found := _outcome(plan.runs[i], futures[i])) is not None]


def _watch(futures: dict[int, Future[Failed | None]], queue: object, drawing: Drawing) -> None:
    waiting = set(futures)
    while waiting:
        with suppress(Empty):  # one event at a time: workers that talk without a pause must not hide that others have ended
            drawing.tell(queue.get(timeout=0.2))  # type: ignore[attr-defined]
        for index in [i for i in waiting if futures[i].done()]:
            waiting.discard(index)
            drawing.finished(index)


def _outcome(run: PlannedRun, future: Future[Failed | None]) -> Failed | None:
    try:
        return future.result()
    except BrokenProcessPool:
        return Failed(f"{run.spec.name}, seed {run.seed}: its process ended without a word (killed, or out of memory?)", 1)


class Drawing:
    """The progress of an experiment: one line in all, one a running run; plain lines where there is no terminal."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
        self.progress = Progress(*columns, TimeElapsedColumn(), console=self.console, refresh_per_second=4)
        self.whole = self.progress.add_task(f"{plan.experiment.config.name}: runs", total=len(plan.runs), note="")
        self.tasks: dict[int, TaskID] = {}
        self.ended: set[int] = set()
        self.start = time.monotonic()

    def __enter__(self) -> Drawing:
        if self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.progress.stop()

    def tell(self, event: Event) -> None:
        if event.run in self.ended:  # its last words may come after its end
            return
        name = f"{self._name(event.run)} {event.phase}"
        if event.run not in self.tasks:
            self.tasks[event.run] = self.progress.add_task(name, total=event.total, note="")
        self.progress.update(self.tasks[event.run], description=name, completed=event.done, total=event.total, note=event.note)

    def finished(self, index: int) -> None:
        self.ended.add(index)
        if index in self.tasks:
            self.progress.remove_task(self.tasks.pop(index))
        self.progress.advance(self.whole)
        done = int(self.progress.tasks[0].completed)
        if not self.console.is_terminal:
            seconds = time.monotonic() - self.start
            self.console.print(f"[{done}/{len(self.plan.runs)}] {self._name(index)} done after {seconds:.0f} s", highlight=False)

    def _name(self, index: int) -> str:
        run = self.plan.runs[index]
        return f"{run.part}/{run.model} seed {run.seed}"
