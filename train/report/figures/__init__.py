"""Pictures of the measures, drawn from result rows alone: a file a measure, called like the measure's own in zoo/measures.

A file holds `pictures(name, table, models, length)`. A measure without a file here has no picture, only numbers.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence

import pandas as pd

from train.report.figures.shared.picture import Picture

DRAWN = frozenset(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)  # measures with a file here


def pictures(measure: str, name: str, table: pd.DataFrame, models: Sequence[str], length: int) -> list[Picture]:
    """The pictures of a measure's type under its `name` in the experiment.

    table: its records, see train.measure.results.frame; models: in the order of their colours; length: tokens of a training sequence.
    """
    if measure not in DRAWN:
        return []
    drawn: list[Picture] = importlib.import_module(f"{__name__}.{measure}").pictures(name, table, models, length)
    return drawn
