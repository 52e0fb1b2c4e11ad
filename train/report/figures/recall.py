"""Recall against the number of pairs."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from train.report import plots
from train.report.figures.shared.picture import Picture


def pictures(name: str, table: pd.DataFrame, models: Sequence[str], length: int) -> list[Picture]:
    """Accuracy by pairs, at the length that has most numbers of pairs."""
    cells = table[table["metric"] == "accuracy"]
    lengths = sorted(set(cells["_length"].astype(int)))
    best = max(lengths, key=lambda n: len(set(cells[cells["_length"] == n]["_pairs"])))
    chosen = cells[cells["_length"] == best]
    text = "Share of keys whose value was named. Bands: 95 % intervals; thin lines: seeds."
    return [Picture(f"{name}: recall", text, plots.accuracy(chosen, models, "_pairs", "key-value pairs", f"{best} tokens"))]
