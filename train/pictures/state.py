"""The state while it is read into."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from train import plots
from train.pictures.base import Picture, Shown
from train.results import ALL

HEADLINE = (Shown("state_bytes", None, "bytes"),)


def pictures(name: str, table: pd.DataFrame, models: Sequence[str], length: int) -> list[Picture]:
    """The norm of every head, the training length marked."""
    norms = table[(table["metric"] == "norm") & table["_head"].notna()]
    text = "Every head of every layer, mean over documents and seeds."
    return [Picture(f"{name}: norm of the state", text, states(norms, models, length))]


def states(table: pd.DataFrame, models: Sequence[str], train_length: int) -> str:
    """The norm of every recurrent state against the tokens read, a line a layer and head, one panel a model."""
    with_state = [m for m in models if m in set(table["model"])]

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(with_state), sharey=True, squeeze=False)[0]
        for ax, model in zip(axes, with_state, strict=True):
            mine = table[(table["model"] == model) & (table["seed"] == ALL)]
            layers = sorted(set(mine["_layer"]), key=int)
            for (layer, _, _), head in mine.groupby(["_layer", "_tensor", "_head"]):
                line = head.assign(x=head["_token"].astype(float)).sort_values("x")
                first = layer not in ax.get_legend_handles_labels()[1]
                shade = mpl.colormaps["viridis"](layers.index(layer) / max(1, len(layers) - 1) * 0.85)
                ax.plot(line["x"], line["value"], color=shade, linewidth=1, label=layer if first else None)
            ax.axvline(train_length, color="0.4", linestyle=":", linewidth=1)
            ax.set_xscale("log", base=2)
            ax.set_yscale("log")
            ax.set(title=model, xlabel="tokens read")
            ax.legend(title="layer", fontsize=8)
        axes[0].set_ylabel("norm of the state of a head")

    return plots.svg(draw, width=3.4 * len(with_state) + 0.6, height=3.4)
