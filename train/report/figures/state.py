"""The state while it is read into: its norm, and the channels of the head that grows most."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from train.measure.results import ALL
from train.report import plots
from train.report.figures.shared.picture import Picture

HEAD = ["_layer", "_block", "_tensor", "_head"]  # what names one


def pictures(name: str, table: pd.DataFrame, models: Sequence[str], length: int) -> list[Picture]:
    """The norm of every head, the training length marked; the channels of the head that grows most."""
    known = table[table["seed"] == ALL].reindex(columns=list(dict.fromkeys([*table.columns, *HEAD, "_channel"])))
    known = known.assign(**{key: known[key].astype(object).where(known[key].notna(), "").map(str) for key in HEAD})
    norms = known[known["metric"] == "norm"]
    headed = set(norms[norms["_head"] != ""]["model"])
    norms = norms[(norms["_head"] != "") | ~norms["model"].isin(headed)]  # beside matrix states what convolutions hold says little
    drawn = []
    if len(norms):
        text = "Every head of every layer (a state without heads is one), mean over all documents."
        drawn.append(Picture(f"{name}: norm of the state", text, states(norms, models, length)))
    if (known["metric"] == "channel_rms").any():
        text = (
            "The head with the channel that grew most from the training length (dotted) to the end of the text: every channel's root "
            "mean square, mean over all documents. Named on the right: the channels that explode, with the growth of their energy."
        )
        drawn.append(Picture(f"{name}: channels of the state", text, channel_maps(known, models, length)))
    return drawn


def states(table: pd.DataFrame, models: Sequence[str], train_length: int) -> str:
    """The norm of every recurrent state against the tokens read, a line a layer and head, one panel a model."""
    with_state = [m for m in models if m in set(table["model"])]

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(with_state), sharey=True, squeeze=False)[0]
        for ax, model in zip(axes, with_state, strict=True):
            mine = table[table["model"] == model]
            layers = sorted(set(mine["_layer"]), key=lambda layer: int(layer or -1))
            for (layer, *_), head in mine.groupby(HEAD):
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


def channel_maps(table: pd.DataFrame, models: Sequence[str], train_length: int) -> str:
    """Channels against tokens read of one head, one panel a model."""
    shown = [m for m in models if m in set(table[table["metric"] == "channel_rms"]["model"])]

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(shown), squeeze=False)[0]
        for ax, model in zip(axes, shown, strict=True):
            channel_map(figure, ax, table[table["model"] == model], train_length)
            ax.set_title(f"{model}: {ax.get_title()}")

    return plots.svg(draw, width=5.2 * len(shown), height=4.2)


def channel_map(figure: Figure, ax: Axes, mine: pd.DataFrame, train_length: int) -> None:
    """One model's panel."""
    where, grid = worst_head(mine[mine["metric"] == "channel_rms"], train_length)
    known = grid.where(grid > 0)
    low, high = float(known.min(axis=None)), float(known.max(axis=None))
    image = ax.imshow(known.to_numpy(), aspect="auto", origin="lower", cmap="magma", norm=LogNorm(low, high) if low < high else None)
    figure.colorbar(image, ax=ax, label="root mean square of the channel", pad=0.16)
    here = mine[(mine[HEAD] == list(where)).all(axis=1) & mine["_channel"].notna()]
    growth = here[here["metric"] == "growth"].set_index("_channel")["value"]
    for channel in here[(here["metric"] == "exploding") & (here["value"] > 0)]["_channel"]:
        ax.annotate(f"{channel}: ×{growth[channel]:.2g}", (1.01, grid.index.get_loc(int(channel))), xycoords=("axes fraction", "data"),
                    fontsize=8, va="center", annotation_clip=False)  # fmt: skip
    if train_length in grid.columns:
        ax.axvline(grid.columns.get_loc(train_length), color="white", linestyle=":", linewidth=1.2)
    ax.set_xticks(range(len(grid.columns)), [str(token) for token in grid.columns], rotation=60)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(visible=False)
    layer, block, tensor, head = where
    ax.set(xlabel="tokens read", ylabel="channel", title=f"layer {layer}, {block} {tensor}" + (f", head {head}" if head else ""))


def worst_head(table: pd.DataFrame, train_length: int) -> tuple[tuple[str, ...], pd.DataFrame]:
    """(what names it, channels x tokens) of the head with the channel that grew most; seeds may differ in theirs."""
    grids = []
    for where, rows in table.groupby(HEAD):
        grid = rows.assign(c=rows["_channel"].astype(int), t=rows["_token"].astype(int)).pivot_table("value", "c", "t")
        grown = grid.iloc[:, -1] / grid[train_length].clip(lower=1e-300) if train_length in grid else grid.iloc[:, -1]
        grids.append((float(grown.max()), tuple(map(str, where)), grid))
    _, where, grid = max(grids, key=lambda entry: entry[0])
    return where, grid
