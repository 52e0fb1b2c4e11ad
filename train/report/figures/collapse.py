"""Loss by position, one stream against windows."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from train.measure.results import ALL
from train.report import plots
from train.report.figures.shared.picture import Picture

FIRST_POSITION = 16


def pictures(name: str, table: pd.DataFrame, models: Sequence[str], length: int) -> list[Picture]:
    """Both losses, the training length marked."""
    stream, window = table[table["metric"] == "nll_stream"], table[table["metric"] == "nll_window"]
    against = (
        "One stream with the state carried, against windows that begin anew, on the same tokens. Where the solid line leaves the dashed "
        "one, the carried state has begun to hurt. Bands: 95 % intervals."
    )
    alone = "One stream with the state carried. Bands: 95 % intervals."
    text = alone if window.empty else against
    return [Picture(f"{name}: loss by position", text, loss_by_position(stream, window, models, length, "nats a token"))]


def loss_by_position(stream: pd.DataFrame, window: pd.DataFrame, models: Sequence[str], train_length: int, unit: str) -> str:
    """Streamed loss by position, beside the loss of a window of the training length on the same tokens (dashed).

    The first tokens, whose loss says nothing of memory, are left out of the picture.
    """
    stream, window = (t[t["_position"].astype(float) >= FIRST_POSITION] for t in (stream, window))

    def draw(figure: Figure) -> None:
        ax = figure.add_subplot()
        plots.curves(ax, stream, "_position", models, seeds=False)
        for model in models:
            mine = window[(window["model"] == model) & (window["seed"] == ALL)].assign(x=lambda t: t["_position"].astype(float))
            mine = mine.sort_values("x")
            ax.plot(mine["x"], mine["value"], color=plots.colour(models, model), linestyle="--", linewidth=1)
        ax.axvline(train_length, color="0.4", linestyle=":", linewidth=1)
        ax.annotate(f"training length {train_length}", (train_length, 0.98), xycoords=("data", "axes fraction"), fontsize=8, rotation=90,
                    va="top", ha="right", color="0.3")  # fmt: skip
        ax.set_xscale("log", base=2)
        ax.set(
            xlabel="position in the document (tokens)",
            ylabel=f"loss ({unit})",
            title="One stream" if window.empty else "Solid: one stream. Dashed: a window of the training length",
        )
        ax.legend()

    return plots.svg(draw)
