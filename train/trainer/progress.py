"""The progress bar's interface: what a training run reports to."""

from __future__ import annotations

from typing import Protocol


class Bar(Protocol):
    """Receives the progress of a run, about ten times a second."""

    def start(self, name: str, step: int, steps: int) -> None:
        """A run begins, or goes on after `step` of its `steps`."""

    def update(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        """`step` steps are done; the loss (nats a label) and the learning rate are those of the last one."""

    def stop(self) -> None:
        """The run is over, for whatever reason."""
