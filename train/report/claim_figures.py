"""A claim's pictures, from verdict.json alone: trends with their seeds, and estimates beside their thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from train.report.plots import COLOURS, MARKERS, STYLE, svg

SHADES = {"holds": "#009E73", "fails": "#D55E00", "undecided": "#777777"}


def statement_svg(row: Mapping[str, Any]) -> str:
    """The picture of a statement."""

    def draw_one(figure: Figure) -> None:
        draw(figure.add_subplot(), row)

    return svg(draw_one, height=3.8 if row["picture"] else 1.7)


def save_png(verdict: Mapping[str, Any], path: Path) -> None:
    """All of a claim's pictures beside each other."""
    rows = verdict["statements"]
    across = min(2, len(rows))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6 * across, 3.6 * ceil(len(rows) / across) + 0.5))
        figure.suptitle(f"{verdict['experiment']}: {verdict['verdict']}", fontsize=12)
        axes = figure.subplots(ceil(len(rows) / across), across, squeeze=False).ravel()
        for ax, row in zip(axes, rows, strict=False):
            draw(ax, row)
        for ax in axes[len(rows) :]:
            ax.set_axis_off()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)


def draw(ax: Axes, row: Mapping[str, Any]) -> None:
    """A statement: its trend, or its estimate with the interval and the threshold."""
    _trend(ax, row["picture"]) if row["picture"] else _bar(ax, row)
    ax.set_title(f"{row['text']}: {row['verdict']}", fontsize=9, color=SHADES[row["verdict"]], wrap=True)


def _trend(ax: Axes, picture: Mapping[str, Any]) -> None:
    """Every seed as a point, a colour a model; where only a range is known, a bar; fitted curves with their bands."""
    models = list(dict.fromkeys(point["model"] for point in picture["points"]))
    for index, model in enumerate(models):
        mine = [p for p in picture["points"] if p["model"] == model and p["y"] is not None]
        shade, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        ax.plot([p["x"] for p in mine], [p["y"] for p in mine], linestyle="", alpha=0.7, label=model, color=shade, marker=marker)
        for p in mine:
            _range(ax, p, shade)
    for curve, line, grey in zip(picture["curves"], ("-", "--"), ("0.25", "0.6"), strict=False):
        x, value, low, high = (np.array(curve[key], dtype=np.float64) for key in ("x", "value", "low", "high"))
        ax.plot(x, value, color=grey, linestyle=line, linewidth=1.2, label=curve["name"])
        ax.fill_between(x, low, high, color=grey, alpha=0.15, linewidth=0)
    if picture["log2"]:
        ax.set_xscale("log", base=2)
    _frame(ax, picture)
    ax.set(xlabel=picture["x"], ylabel=picture["y"])
    ax.legend(fontsize=8)


def _range(ax: Axes, point: Mapping[str, Any], colour: str) -> None:
    """The range of a number that is not known exactly; an arrow where it is open."""
    if point["high"] is None:
        ax.plot([point["x"]], [point["y"]], color=colour, marker="^", markersize=12, fillstyle="none")
    elif point["low"] < point["high"]:
        ax.plot([point["x"]] * 2, [point["low"], point["high"]], color=colour, alpha=0.35)


def _frame(ax: Axes, picture: Mapping[str, Any]) -> None:
    """The y axis goes by the points: a band over few seeds may be far wider."""
    known = [p[key] for p in picture["points"] for key in ("y", "low", "high") if p[key] is not None]
    if known:
        room = 0.25 * (max(known) - min(known)) or 0.1
        ax.set_ylim(min(known) - room, max(known) + room)


def _bar(ax: Axes, row: Mapping[str, Any]) -> None:
    """The estimate with its interval, and the thresholds as vertical lines."""
    estimate, shade = row["estimate"], SHADES[row["verdict"]]
    known = [v for v in (estimate, row["low"], row["high"], row["above"], row["below"]) if v is not None]
    width = (max(known) - min(known)) or 1.0
    if estimate is not None:
        ends = [estimate if v is None else v for v in (row["low"], row["high"])]
        ax.plot(ends, [0, 0], color=shade, linewidth=3, solid_capstyle="butt")
        ax.plot([estimate], [0], color=shade, marker="o", markersize=8)
    for key in ("above", "below"):
        if row[key] is not None:
            ax.axvline(row[key], color="0.3", linestyle=":")
            ax.annotate(f" {key} {row[key]:g}", (row[key], 0.96), xycoords=("data", "axes fraction"), fontsize=8, va="top")
    ax.set(xlabel=f"{row['unit']}, 95 % interval over {row['seeds']} seeds", yticks=[], ylim=(-1, 1))
    ax.set_xlim(min(known) - 0.15 * width, max(known) + 0.25 * width)
