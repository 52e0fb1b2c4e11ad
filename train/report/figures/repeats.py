"""Loss of repeated n-grams and of all other tokens."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from train.measure.results import ALL
from train.report import plots
from train.report.figures.shared.picture import Picture

AXES = {"distance": "tokens back to the latest occurrence (from)", "times": "occurrences before (from)"}


def pictures(name: str, table: pd.DataFrame, models: Sequence[str], length: int) -> list[Picture]:
    """The loss of repeats by distance and by number, beside that of all other tokens."""
    shares = table[(table["metric"] == "share") & (table["_tokens"] == "repeats") & (table["seed"] == ALL)]
    share = shares[[not AXES.keys() & condition.keys() for condition in shares["condition"]]]["value"].mean()
    text = (
        f"Tokens that complete an n-gram which stands in the context already: {100 * share:.1f} % of all. Dashed: all other tokens. "
        "Dotted line: the training length. Bands: 95 % intervals; thin lines: seeds."
    )
    return [Picture(f"{name}: repeated n-grams", text, losses(table[table["metric"] == "nll"], models, length))]


def losses(table: pd.DataFrame, models: Sequence[str], length: int) -> str:
    """A panel by distance and one by times; the loss of all other tokens as a dashed line."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(AXES), sharey=True, squeeze=False)[0]
        others = table[(table["_tokens"] == "others") & (table["seed"] == ALL)]
        for ax, (key, label) in zip(axes, AXES.items(), strict=True):
            if f"_{key}" in table:
                plots.curves(ax, table[table[f"_{key}"].notna()], f"_{key}", models)
            for model in models:
                for value in others[others["model"] == model]["value"]:
                    ax.axhline(value, color=plots.colour(models, model), linestyle="--", linewidth=1)
            ax.set_xscale("log", base=2)
            ax.xaxis.set_major_formatter("{x:g}")
            ax.set(xlabel=label)
        axes[0].axvline(length, color="0.4", linestyle=":", linewidth=1)
        axes[0].set_ylabel("loss (nats a token)")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)

    return plots.svg(draw, width=9.6, height=3.6)
