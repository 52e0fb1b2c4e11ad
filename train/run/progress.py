"""The progress of an experiment, drawn on the terminal from what its workers tell."""

from __future__ import annotations

import time
from dataclasses import dataclass
from queue import Queue
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:  # a worker and the process of the queue need no plan
    from train.plan.plan import Plan


@dataclass(frozen=True)
class Event:
    """What a worker tells: the run, what it is doing, and how far it is."""

    run: int  # index in the plan
    phase: str  # "train" or a measure's name
    done: int
    total: int
    note: str = ""


class QueueBar:
    """A run's Bar that passes everything on to the process that draws."""

    def __init__(self, run: int, queue: Queue[Event]) -> None:
        self.run, self.queue, self.steps = run, queue, 0

    def start(self, name: str, step: int, steps: int) -> None:
        self.steps = steps
        self.queue.put(Event(self.run, "train", step, steps))

    def update(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        self.queue.put(Event(self.run, "train", step, self.steps, f"loss {loss:.3f}, {tokens_per_s:,.0f} tok/s"))

    def stop(self) -> None:
        pass


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
