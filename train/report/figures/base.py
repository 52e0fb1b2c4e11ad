"""What a measure shows of itself: its headline numbers, and its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import pandas as pd


class Shown(NamedTuple):
    """A metric of the headline, a column a condition."""

    metric: str
    key: str | None  # the condition's key that heads the columns; None: conditions as they are
    unit: str
    scale: float = 1.0


class Picture(NamedTuple):
    """A drawing with what it says."""

    title: str
    text: str
    svg: str


class Pictures(Protocol):
    """A module of train.report.figures."""

    @property
    def HEADLINE(self) -> tuple[Shown, ...]:
        """The numbers that a comparison is read by."""

    def pictures(self, name: str, table: pd.DataFrame, models: Sequence[str], length: int) -> list[Picture]:
        """The pictures of the measure called `name`. table: its rows, see
        train.measure.results.frame; length: tokens of a training sequence."""
