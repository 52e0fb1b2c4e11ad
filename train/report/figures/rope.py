"""Where rotary positions fail."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from train.report import plots
from train.report.figures.shared import attention_heads
from train.report.figures.shared.picture import Picture

FAILURES = {"locality_lost": "near and far confused", "order_lost": "order of two tokens changed"}


def pictures(name: str, table: pd.DataFrame, models: Sequence[str], length: int) -> list[Picture]:
    """Both probabilities against the distance, and the first negative distance marked."""
    rows = pd.concat([attention_heads.joined(table, metric) for metric in FAILURES])
    if not len(rows):
        return []
    text = (
        "Probability that rotary positions rank a far key above the same key near by (left), and that two keys change their order when "
        "they are moved from the query's side to the distance (right). 1/2 is chance. Mean over layers and heads of one base."
    )
    return [Picture(f"{name}: failures of rotary positions", text, failures(rows, models, length))]


def failures(table: pd.DataFrame, models: Sequence[str], train_length: int) -> str:
    """A panel a failure, a line a model and base."""
    lines = list(table.groupby(["model", "_base"], sort=False).groups)
    lines = [line for model in models for line in lines if line[0] == model]

    def draw(figure: Figure) -> None:
        for ax, (metric, label) in zip(figure.subplots(1, len(FAILURES), sharey=True), FAILURES.items(), strict=True):
            for index, (model, base) in enumerate(lines):
                mine = table[(table["metric"] == metric) & (table["model"] == model) & (table["_base"] == base)]
                line = mine.assign(x=mine["_length"].astype(float)).groupby("x")["value"].mean()
                shade = mpl.colormaps["viridis"](index / max(1, len(lines) - 1) * 0.85)
                mark = plots.MARKERS[list(models).index(model) % len(plots.MARKERS)]
                ax.plot(line.index, line, color=shade, marker=mark, markersize=4, label=f"{model}, base {float(base):g}")
            ax.axhline(0.5, color="0.3", linestyle="--", linewidth=1)
            ax.axvline(train_length, color="0.4", linestyle=":", linewidth=1, label="training length")
            ax.set_xscale("log", base=2)
            ax.set(xlabel="distance (tokens)", ylabel=f"probability: {label}", ylim=(0, 0.7))
        ax.legend(fontsize=8)

    return plots.svg(draw, width=8.4, height=3.4)
