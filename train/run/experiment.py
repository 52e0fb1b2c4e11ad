"""`zoo run`: every planned run trained and measured, several beside each other, then the results and the report. Resumable."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.managers import SyncManager
from pathlib import Path
from queue import Empty

from rich.console import Console

from train.claims.verdict import conclude
from train.config.experiment import Experiment
from train.measure.results import joined, write
from train.plan.plan import Plan, make_plan
from train.plan.planned_run import PlannedRun
from train.run.collect import collect
from train.run.folder import run_folder
from train.run.progress import Drawing
from train.run.worker import Failed, end_with_parent, execute, set_up
from train.system.atomic_files import write_json
from train.system.errors import ExperimentFailed


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
    conclude(experiment.config.name, experiment.config.claim, plan.scope(), folder)
    return folder


def _unfinished(plan: Plan, folder: Path) -> bool:
    """Whether anything is left to train."""
    return not all((run_folder(folder, run) / "summary.json").exists() for run in plan.runs)


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
        return [failed for i in order if (failed := _outcome(plan.runs[i], futures[i])) is not None]


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
        return Failed(f"{run.config.name}, seed {run.seed}: its process died (killed, or out of memory?)", 1)
