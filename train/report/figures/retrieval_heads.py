"""Which heads copy the passkey, and what is left of the answers without them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from train.report import plots
from train.report.figures.shared import attention_heads
from train.report.figures.shared.picture import Picture

KINDS = {"none": "0.6", "random": plots.COLOURS[0], "top": plots.COLOURS[1]}  # what is zeroed -> colour


def pictures(name: str, table: pd.DataFrame, models: Sequence[str], length: int) -> list[Picture]:
    """A map of scores, and bars of accuracy."""
    drawn = []
    scores = attention_heads.joined(table, "score")
    if len(scores):
        text = "Share of the passkey's tokens that each head copies: its most attended key is the token to be said."
        drawn.append(Picture(f"{name}: retrieval heads", text, attention_heads.maps(scores, models, "retrieval score")))
    accuracy = attention_heads.joined(table, "accuracy")
    text = (
        "Passkeys found with the outputs of some attention heads zeroed: none, the heads of highest score, or as many of the other "
        "heads, drawn at random. Whiskers: 95 % intervals."
    )
    return [*drawn, Picture(f"{name}: without some heads", text, ablations(accuracy, models))]


def ablations(table: pd.DataFrame, models: Sequence[str]) -> str:
    """Accuracy by the number of heads that are zeroed, a bar a kind, one panel a model."""
    shown = attention_heads.measured(table, models)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for ax, model in zip(axes, shown, strict=True):
            mine = table[table["model"] == model]
            counts = sorted(set(mine["_heads"].astype(int)))
            for kind, shade in KINDS.items():
                bars = mine[mine["_ablated"] == kind]
                x = np.array([counts.index(int(k)) for k in bars["_heads"]]) + {"none": 0.0, "random": -0.2, "top": 0.2}[kind]
                value, low, high = (100 * bars[c].to_numpy() for c in ("value", "low", "high"))
                whiskers = np.nan_to_num(np.stack([value - low, high - value]))
                ax.bar(x, value, 0.4, color=shade, label={"none": "none", "random": "random others", "top": "highest score"}[kind])
                ax.errorbar(x, value, whiskers, fmt="none", color="0.2", capsize=3, linewidth=1)
            ax.set_xticks(range(len(counts)), [str(k) for k in counts])
            ax.set(title=model, xlabel="heads zeroed", ylim=(0, 105))
        axes[0].set_ylabel("passkeys found (%)")
        axes[-1].legend(fontsize=8)

    return plots.svg(draw, width=3.0 * len(shown) + 0.8, height=3.4)
