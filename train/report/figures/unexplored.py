"""Whether states leave what training reached."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from train.measure.results import ALL
from train.report import plots
from train.report.figures.shared.picture import Picture


def pictures(name: str, table: pd.DataFrame, models: Sequence[str], length: int) -> list[Picture]:
    """By position, over all heads."""
    whole = table[table["_layer"].isna() & (table["seed"] == ALL)]
    shown = [model for model in models if model in set(whole["model"])]
    if not shown:
        return []
    text = (
        "Left: the distance of the state from the states that training reaches, in standard deviations, the median over heads; about 1 "
        "is a state like those. Right: the share of heads that are farther than at any look inside the training length. Both on "
        "documents that were not used for the reference. Bands: 95 % intervals."
    )
    return [Picture(f"{name}: unexplored states", text, unexplored(table[table["_layer"].isna()], shown, models, length))]


def unexplored(table: pd.DataFrame, shown: Sequence[str], models: Sequence[str], train_length: int) -> str:
    """Distance and share of unexplored heads against the tokens read."""

    def draw(figure: Figure) -> None:
        distance, share = figure.subplots(1, 2)
        panel(distance, table[table["metric"] == "distance"], models, train_length)
        distance.axhline(1, color="0.4", linewidth=0.8)
        distance.set_yscale("log")
        distance.set_ylabel("distance (standard deviations)")
        far = table[table["metric"] == "unexplored"]
        panel(share, far.assign(**{c: 100 * far[c] for c in ("value", "low", "high")}), models, train_length)
        share.set(ylabel="heads in unexplored states (%)", ylim=(-3, 103))
        if len(shown) > 0:
            distance.legend()

    return plots.svg(draw, width=8.4, height=3.4)


def panel(ax: Axes, table: pd.DataFrame, models: Sequence[str], train_length: int) -> None:
    """Curves by position with the training length marked."""
    plots.curves(ax, table, "_token", models, seeds=False)
    ax.axvline(train_length, color="0.4", linestyle=":", linewidth=1)
    ax.annotate("training length", (train_length, 0.98), xycoords=("data", "axes fraction"), fontsize=8, rotation=90, va="top", ha="right",
                color="0.3")  # fmt: skip
    ax.set_xscale("log", base=2)
    ax.set_xlabel("tokens read")
