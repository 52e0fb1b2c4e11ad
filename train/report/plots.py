"""The report's pictures, each drawn from results.csv alone: units on every axis, intervals on every curve, one colour a model."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from train.measure.results import ALL

# Okabe & Ito's palette: told apart by colour-blind eyes, too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.fonttype": "none",
    "figure.constrained_layout.use": True,
    "legend.frameon": False,
    "svg.hashsalt": "zoo",
}


def svg(draw: Callable[[Figure], None], width: float = 6.4, height: float = 3.8) -> str:
    """A drawing as an SVG element for a page."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def colour(models: Sequence[str], model: str) -> str:
    """The colour of a model: the same in every picture of a report."""
    return COLOURS[list(models).index(model) % len(COLOURS)]


def curves(ax: Axes, table: pd.DataFrame, key: str, models: Sequence[str], *, seeds: bool = True) -> None:
    """One curve a model: the mean over seeds, its interval as a band, every seed as a thin line."""
    for index, model in enumerate(models):
        mine = table[table["model"] == model].assign(x=lambda t: t[key].astype(float)).sort_values("x")
        whole = mine[mine["seed"] == ALL]
        if whole.empty:
            continue
        shade = colour(models, model)
        ax.plot(whole["x"], whole["value"], color=shade, marker=MARKERS[index % len(MARKERS)], markersize=4, label=model)
        if (whole["n"] > 1).any():
            ax.fill_between(whole["x"], whole["low"], whole["high"], color=shade, alpha=0.15, linewidth=0)
        for seed in sorted(set(mine["seed"]) - {ALL}) if seeds else ():
            one = mine[mine["seed"] == seed]
            ax.plot(one["x"], one["value"], color=shade, linewidth=0.6, alpha=0.5)


def accuracy(table: pd.DataFrame, models: Sequence[str], key: str, label: str, title: str) -> str:
    """Accuracy against a condition's number, in per cent."""

    def draw(figure: Figure) -> None:
        ax = figure.add_subplot()
        curves(ax, table.assign(**{c: 100 * table[c] for c in ("value", "low", "high")}), key, models)
        ticks = sorted(set(table[key].astype(float)))
        ax.set_xscale("log", base=2)
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        ax.set(xlabel=label, ylabel="accuracy (%)", ylim=(-3, 103), title=title)
        ax.legend()

    return svg(draw)


def heat_maps(table: pd.DataFrame, models: Sequence[str]) -> str:
    """Passkey accuracy by length and depth, one map a model."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
        for ax, model in zip(axes, models, strict=True):
            mine = table[(table["model"] == model) & (table["seed"] == ALL)]
            grid = mine.assign(l=mine["_length"].astype(int), d=mine["_depth"].astype(float)).pivot_table("value", "d", "l")
            ax.imshow(grid.to_numpy(), vmin=0, vmax=1, cmap="viridis", aspect="auto")
            for (row, column), value in np.ndenumerate(grid.to_numpy()):
                ax.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=8, color="white" if value < 0.6 else "black")
            ax.set_xticks(range(grid.shape[1]), [str(c) for c in grid.columns], rotation=60)
            ax.set_yticks(range(grid.shape[0]), [f"{d:g}" for d in grid.index])
            ax.grid(visible=False)
            ax.set(title=model, xlabel="length (tokens)")
        axes[0].set_ylabel("depth of the passkey (0 = start)")

    return svg(draw, width=2.6 * len(models) + 1, height=3.2)


def training(table: pd.DataFrame, models: Sequence[str], unit: str) -> str:
    """Training loss against training FLOPs."""

    def draw(figure: Figure) -> None:
        ax = figure.add_subplot()
        curves(ax, table, "_flops", models)
        for line in ax.lines:
            line.set_marker("")
        ax.set(xlabel="training FLOPs", ylabel=f"training loss ({unit})")
        ax.set_yscale("log")
        ax.legend()

    return svg(draw)
