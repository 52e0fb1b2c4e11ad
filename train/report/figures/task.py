"""Accuracy on a task: against what its conditions differ in, and by what each answer asks for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from train.measure.results import ALL
from train.report import plots
from train.report.figures.shared.picture import Picture
from zoo.measures.shared.condition import Condition, written

PANELS = 4  # beside one another


def pictures(name: str, table: pd.DataFrame, models: Sequence[str], length: int) -> list[Picture]:
    """Curves along the key that has most values, and a map of conditions and bins for every key that answers are split by."""
    where = list(dict.fromkeys(table[table["metric"] == "chance"]["condition"]))
    keys = list(dict.fromkeys(key for condition in where for key in condition))
    accuracy = table[table["metric"] == "accuracy"]
    drawn = []
    numbers = {key: len({c.get(key) for c in where}) for key in keys if all(isinstance(c.get(key), (int, float)) for c in where)}
    if max(numbers.values()) > 1:
        along = max(numbers, key=lambda key: (numbers[key], key == "length"))
        text = "Share of right answers. Bands: 95 % intervals; thin lines: seeds; dashed grey: chance; dotted: effective size."
        whole = table[table["condition"].isin(where) | table["metric"].str.startswith("effective_")]
        drawn.append(Picture(f"{name}: accuracy by {along}", text, curves(whole, models, along, [key for key in keys if key != along])))
    for column in [c for c in table.columns if c.startswith("_") and c[1:] not in keys and accuracy[c].notna().any()]:
        text = f"Share of answers that are right by {column[1:]}, in per cent. A bin is called by its lower edge."
        drawn.append(Picture(f"{name}: accuracy by {column[1:]}", text, maps(accuracy[accuracy[column].notna()], models, keys, column[1:])))
    return drawn


def curves(table: pd.DataFrame, models: Sequence[str], along: str, rest: Sequence[str]) -> str:
    """A panel for each combination of the other keys."""
    cells = table[table["metric"].isin(["accuracy", "chance"])]
    panels = list(dict.fromkeys(_called(condition, rest) for condition in cells["condition"]))
    rows = -(-len(panels) // PANELS)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(rows, min(len(panels), PANELS), sharey=True, squeeze=False)
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        for ax, panel in zip(axes.flat, panels, strict=False):
            mine = table[[_called(condition, rest) == panel for condition in table["condition"]]]
            _panel(ax, mine.assign(**{c: 100 * mine[c] for c in ("value", "low", "high")}), models, along)
            for model in models:
                size = mine[(mine["metric"] == f"effective_{along}") & (mine["model"] == model) & (mine["seed"] == ALL)]["value"]
                for value in size[size > 0]:
                    ax.axvline(value, color=plots.colour(models, model), linestyle=":", linewidth=1)
            ax.set(title=panel, xlabel=f"{along} (tokens)" if along == "length" else along, ylim=(-3, 103))
        for ax in axes[:, 0]:
            ax.set_ylabel("accuracy (%)")
        axes[0, 0].legend(fontsize=8)

    wide = min(len(panels), PANELS)
    return plots.svg(draw, width=6.4 if wide == 1 else 3.0 * wide + 0.6, height=3.8 if rows == 1 else 3.0 * rows)


def _panel(ax: Axes, table: pd.DataFrame, models: Sequence[str], along: str) -> None:
    plots.curves(ax, table[table["metric"] == "accuracy"], f"_{along}", models)
    chance = table[(table["metric"] == "chance") & (table["seed"] == ALL)].assign(x=lambda t: t[f"_{along}"].astype(float))
    chance = chance.drop_duplicates("x").sort_values("x")
    ax.plot(chance["x"], chance["value"], color="0.5", linestyle="--", linewidth=1)
    ticks = chance["x"].tolist()
    if ticks[0] > 0:
        ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()


def maps(table: pd.DataFrame, models: Sequence[str], keys: Sequence[str], key: str) -> str:
    """Conditions by bins, one map a model."""
    whole = table[table["seed"] == ALL].assign(bin=lambda t: t[f"_{key}"].astype(float))
    conditions = list(dict.fromkeys(_called(condition, keys) for condition in whole["condition"]))
    bins = sorted(set(whole["bin"]))

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
        for ax, model in zip(axes, models, strict=True):
            grid = np.full((len(conditions), len(bins)), np.nan)
            for _, cell in whole[whole["model"] == model].iterrows():
                grid[conditions.index(_called(cell["condition"], keys)), bins.index(cell["bin"])] = cell["value"]
            ax.imshow(grid, vmin=0, vmax=1, cmap="viridis", aspect="auto")
            for (row, column), value in np.ndenumerate(grid):
                shade = "white" if value < 0.6 else "black"
                ax.text(column, row, "" if np.isnan(value) else f"{100 * value:.0f}", ha="center", va="center", fontsize=8, color=shade)
            ax.set_xticks(range(len(bins)), [f"{edge:g}" for edge in bins], rotation=60)
            ax.set_yticks(range(len(conditions)), conditions)
            ax.grid(visible=False)
            ax.set(title=model, xlabel=f"{key} (tokens)" if key == "distance" else key)

    tall, wide = 0.32 * len(conditions) + 1.6, (0.36 * len(bins) + 0.6) * len(models) + 1.8
    return plots.svg(draw, width=max(wide, 4.0), height=max(tall, 2.2))


def _called(condition: Condition, keys: Sequence[str]) -> str:
    """What a condition says of these keys: `length 128, pairs 8`."""
    return ", ".join(f"{key} {written(condition[key])}" for key in keys if key in condition)
