"""How spread out attention is, as the text gets longer."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from train.report import plots
from train.report.figures.shared import attention_heads
from train.report.figures.shared.picture import Picture


def pictures(name: str, table: pd.DataFrame, models: Sequence[str], length: int) -> list[Picture]:
    """Entropy against position, and maps of the slope and of the share on the first token."""
    entropy, slope = attention_heads.joined(table, "entropy"), attention_heads.joined(table, "slope")
    if not len(entropy):
        return []
    first = attention_heads.joined(table, "first")
    last = first.groupby("model")["_position"].transform(lambda p: p.astype(int).max())
    late = first[first["_position"].astype(int) == last]
    return [
        Picture(
            f"{name}: entropy of attention",
            "Every head, mean over all documents. Dashed: attention spread evenly over all tokens so far.",
            entropies(entropy, models, length),
        ),
        Picture(
            f"{name}: growth of the entropy",
            "Slope of the entropy against the log of the tokens read. 1: attention spreads over the whole text; 0: it keeps its focus.",
            attention_heads.maps(slope, models, "slope"),
        ),
        Picture(
            f"{name}: attention sinks",
            "Share of the weights on the first token, at the last positions that were read. Mean over all documents.",
            attention_heads.maps(late, models, "share on the first token"),
        ),
    ]


def entropies(table: pd.DataFrame, models: Sequence[str], train_length: int) -> str:
    """Entropy against position, a line a head, one panel a model."""
    shown = attention_heads.measured(table, models)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for ax, model in zip(axes, shown, strict=True):
            mine = table[table["model"] == model]
            layers = sorted(set(mine["_layer"]), key=int)
            for (layer, _, _), head in mine.groupby(["_layer", "_block", "_head"]):
                line = head.assign(x=_middle(head["_position"])).sort_values("x")
                first = f"layer {layer}" not in ax.get_legend_handles_labels()[1]
                shade = mpl.colormaps["viridis"](layers.index(layer) / max(1, len(layers) - 1) * 0.85)
                ax.plot(line["x"], line["value"], color=shade, linewidth=1.2, label=f"layer {layer}" if first else None)
            positions = np.unique(_middle(mine["_position"]))
            ax.plot(positions, np.log(positions + 1), color="0.3", linestyle="--", linewidth=1)
            ax.axvline(train_length, color="0.4", linestyle=":", linewidth=1, label="training length")
            ax.set_xscale("log", base=2)
            ax.set(title=model, xlabel="position in the text (tokens)")
            ax.legend(fontsize=8)
        axes[0].set_ylabel("entropy of attention (nats)")

    return plots.svg(draw, width=3.4 * len(shown) + 0.6, height=3.4)


def _middle(start: pd.Series) -> pd.Series:
    """The mean position of a bucket that begins at `start` and ends where its double does."""
    return 1.5 * start.astype(float) - 0.5
