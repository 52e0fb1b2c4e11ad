"""The output of `zoo bench`: a line a result while it measures, the summary, bench.json and its picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from train.bench.case import Case
from train.bench.run import Result

HEADING = f"{'operation':<26} {'shape':<34} {'ours ms':>9} {'peer ms':>9} {'ratio':>7} {'target':>8}       beside"


@contextmanager
def drawing(cases: Sequence[Case], *, quiet: bool) -> Iterator[Callable[[Result], None]]:
    """A bar on standard error and, unless quiet, a line a result on standard output."""
    out = Console(quiet=quiet, highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    out.print(HEADING, style="bold")
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("benchmarks", total=len(cases))
        seen: set[str] = set()

        def told(result: Result) -> None:
            name = f"{result.op} {result.shape} {result.peer}"
            seen.add(name)
            bar.update(task, completed=len(seen), description=result.op)
            out.print(line(result))

        yield told


def line(result: Result) -> str:
    """One result as text."""
    sign = "at most " if result.kind == "limit" else ""
    target = "" if result.target is None else f"{sign}{result.target:g}x"
    verdict = {None: "", True: "met", False: "MISSED"}[result.met]
    share = "" if result.gemm_share is None else f"; {result.gemm_share:.0%} of the GEMM rate"
    if result.gemm_target is not None and result.gemm_share is not None:
        share += f" (at least {result.gemm_target:.0%}: {'met' if result.gemm_share >= result.gemm_target else 'MISSED'})"
    kind = "" if result.kind == "equal" else f" [{result.kind}]"
    text = f"{result.op:<26} {result.shape:<34} {result.ours_ms:9.2f} {result.peer_ms:9.2f} {result.ratio:6.2f}x"
    return f"{text} {target:>12} {verdict:<6} {result.peer}{kind}{share}"


def verdict(results: Sequence[Result]) -> None:
    """How many targets were met."""
    held = [result for result in results if result.met is not None]
    missed = [result for result in held if not result.met]
    print(f"\n{len(held) - len(missed)} of {len(held)} targets met")


def save(results: dict[str, Any], folder: str | Path) -> None:
    """Write bench.json and bench.png into the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    draw(results, folder / "bench.png")


def draw(results: dict[str, Any], path: Path) -> None:
    """Every ratio to an alternative as a bar on a logarithmic axis, its target as a tick. Guard rails are left to the JSON."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from train.report.plots import COLOURS, STYLE

    rows = [row for row in results["results"] if row["kind"] != "limit" and not row["peer"].startswith("its")][::-1]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 0.27 * len(rows) + 1.4))
        ax = figure.subplots()
        for at, row in enumerate(rows):
            ax.barh(at, row["ratio"] - 1, left=1, height=0.62, color=COLOURS[row["kind"] == "shipped"])
            if row["target"] is not None:
                ax.plot([row["target"]] * 2, [at - 0.45, at + 0.45], color="black", linewidth=2)
            ax.text(max(row["ratio"], row["target"] or 1, 1) * 1.05, at, f"{row['ratio']:.1f}x", va="center", fontsize=8)
        ax.set_xscale("log")
        ax.set_yticks(range(len(rows)), [f"{row['op']}, {row['shape']}  |  {row['peer']}" for row in rows], fontsize=8)
        ticks = (0.5, 1, 2, 4, 8, 16, 32)
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        ax.axvline(1, color="black", linewidth=0.8)
        ax.set_xlabel("times as fast as the alternative")
        machine = results["machine"]
        where = f"{machine['cpu']}, threads: {machine['threads']}, torch {machine['versions']['torch']}"
        figure.suptitle(f"{where}\nblue: the same settings on both sides; orange: as shipped; black tick: target", fontsize=9)
        ax.set_ylim(-0.8, len(rows) - 0.2)
        figure.savefig(path, dpi=130)
