"""What is told how a training run gets on."""

from __future__ import annotations

from typing import Protocol


class Bar(Protocol):
    """Told how a run gets on, about ten times a second."""

    def start(self, name: str, step: int, steps: int) -> None:
        """A run begins, or goes on after `step` of its `steps`."""

    def update(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        """So many steps are done."""

    def stop(self) -> None:
        """The run is over, for whatever reason."""
