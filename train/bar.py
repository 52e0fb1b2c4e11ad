"""The progress of a run: anything with a Bar's three methods, or RichBar, one line on standard error."""

from __future__ import annotations

from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class Bar(Protocol):
    """Told how a run gets on, about ten times a second."""

    def start(self, name: str, step: int, steps: int) -> None:
        """A run begins, or goes on after `step` of its `steps`."""

    def update(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        """So many steps are done."""

    def stop(self) -> None:
        """The run is over, for whatever reason."""


class RichBar:
    """Name, bar, step, loss, learning rate, tokens a second, time left."""

    COLUMNS = (
        "{task.description}",
        BarColumn(bar_width=24),
        "{task.completed}/{task.total}",
        "loss {task.fields[loss]}",
        "lr {task.fields[lr]}",
        "{task.fields[speed]} tok/s",
        TimeRemainingColumn(compact=True),
    )

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)

    def start(self, name: str, step: int, steps: int) -> None:
        columns = [TextColumn(c) if isinstance(c, str) else c for c in self.COLUMNS]
        self.progress = Progress(*columns, console=self.console, refresh_per_second=4)
        self.task = self.progress.add_task(name, total=steps, completed=step, loss="-", lr="-", speed="-")
        self.progress.start()

    def update(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        self.progress.update(self.task, completed=step, loss=f"{loss:.4f}", lr=f"{lr:.2e}", speed=f"{tokens_per_s:,.0f}")

    def stop(self) -> None:
        self.progress.stop()
