"""Passkeys found, by length and depth."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from train.report import plots
from train.report.figures.shared.picture import Picture


def pictures(name: str, table: pd.DataFrame, models: Sequence[str], length: int) -> list[Picture]:
    """A heat map a model."""
    cells = table[(table["metric"] == "accuracy") & table["_depth"].notna()]
    text = "Share of passkeys of which every token was right, by length and depth, in per cent."
    return [Picture(f"{name}: passkey", text, plots.heat_maps(cells, models))]
