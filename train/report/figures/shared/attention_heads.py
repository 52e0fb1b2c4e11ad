"""What pictures of attention heads share: maps of layer and head, one panel a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from train.measure.results import ALL
from train.report import plots

DARK = 0.6  # values above this share of the scale are written in black


def joined(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of a metric that join the seeds."""
    return table[(table["metric"] == metric) & (table["seed"] == ALL)]


def measured(table: pd.DataFrame, models: Sequence[str]) -> list[str]:
    """Those of the models that the rows are of, in their order."""
    return [m for m in models if m in set(table["model"])]


def maps(table: pd.DataFrame, models: Sequence[str], label: str, *, low: float = 0.0, high: float = 1.0, digits: int = 2) -> str:
    """A value a layer and head, from rows that join the seeds, one panel a model. label: what the values are, for the colour bar."""
    shown = measured(table, models)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(shown), squeeze=False)[0]
        for ax, model in zip(axes, shown, strict=True):
            mine = table[table["model"] == model]
            mine = mine.assign(layer=mine["_layer"].astype(int), head=mine["_head"].astype(int))
            grid = mine.pivot_table("value", ["layer", "_block"], "head")
            image = ax.imshow(grid.to_numpy(), vmin=low, vmax=high, cmap="viridis", aspect="auto")
            for (row, column), value in np.ndenumerate(grid.to_numpy()):
                if np.isfinite(value):
                    bright = value - low > DARK * (high - low)
                    ax.text(column, row, f"{value:.{digits}f}", ha="center", va="center", fontsize=8, color="black" if bright else "white")
            ax.set_xticks(range(grid.shape[1]), [str(c) for c in grid.columns])
            ax.set_yticks(range(grid.shape[0]), [f"{layer} {block}" for layer, block in grid.index])
            ax.grid(visible=False)
            ax.set(title=model, xlabel="head")
        axes[0].set_ylabel("layer and block")
        figure.colorbar(image, ax=axes[-1], label=label)

    return plots.svg(draw, width=2.8 * len(shown) + 1.2, height=3.2)
