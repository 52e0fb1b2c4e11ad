"""How far the first tokens of a text move the prediction at its end."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from train.report import plots
from train.report.figures.shared.picture import Picture


def pictures(name: str, table: pd.DataFrame, models: Sequence[str], length: int) -> list[Picture]:
    """A panel an end of the text."""
    rows = table[table["metric"] == "remembrance"]
    text = (
        "How far the prediction at the end of a text moves (total variation, 0 to 1) when only its last tokens are read. A model that "
        "relies on recent text is near 0 from few tokens on; one that is still moved at the right edge by the very first tokens "
        "cannot forget. Bands: 95 % intervals."
    )
    return [Picture(f"{name}: effective remembrance", text, remembrance(rows, models, length))]


def remembrance(table: pd.DataFrame, models: Sequence[str], train_length: int) -> str:
    """Remembrance against the tokens that are read, one panel an end of the text."""
    ends = sorted(set(table["_end"].astype(int)))

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(ends), sharey=True, squeeze=False)[0]
        for ax, end in zip(axes, ends, strict=True):
            mine = table[table["_end"].astype(int) == end]
            plots.curves(ax, mine.assign(kept=end - mine["_start"].astype(int)), "kept", models, seeds=False)
            if train_length < end:
                ax.axvline(train_length, color="0.4", linestyle=":", linewidth=1)
            ax.set_xscale("log", base=2)
            ax.set_ylim(-0.03, 1.03)
            ax.set(title=f"text of {end} tokens ({end / train_length:g} × training)", xlabel="last tokens that are read")
        axes[0].set_ylabel("remembrance (total variation)")
        axes[-1].legend()

    return plots.svg(draw, width=3.2 * len(ends) + 0.6, height=3.4)
