"""verdict.json: what the results say of each statement, and of the claim."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blocks.errors import ConfigError
from train.claims.config import Bounds, ClaimConfig, Statement, place, statements
from train.claims.estimate import Estimate, finite
from train.claims.scope import Scope
from train.claims.selectors import Results
from train.measure.results import Record, read
from train.system.atomic_files import write_json
from zoo.measures.shared.statistics import Interval

FILE = "verdict.json"
HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"


def decide(interval: Interval, bounds: Bounds) -> str:
    """The verdict of an interval; NaN bounds decide nothing."""
    _, low, high, _ = interval
    above, below = bounds.above, bounds.below
    if (above is not None and high <= above) or (below is not None and low >= below):
        return FAILS
    return HOLDS if (above is None or low > above) and (below is None or high < below) else UNDECIDED


def together(verdicts: Sequence[str]) -> str:
    """The verdict of a claim from its statements'."""
    if FAILS in verdicts:
        return FAILS
    return HOLDS if all(verdict == HOLDS for verdict in verdicts) else UNDECIDED


def judge(claim: ClaimConfig, records: Sequence[Record], scope: Scope) -> dict[str, Any]:
    """verdict.json without its time. Raises ConfigError for a cell that the results lack."""
    results = Results(records, scope.seeds)
    rows = [_judged(statement, i, results, scope) for i, statement in enumerate(statements(claim))]
    about = {"finding": claim.finding, "paper": claim.paper, "scaled": claim.scaled}
    return {**about, "verdict": together([row["verdict"] for row in rows]), "seeds": list(scope.seeds), "statements": rows}


def _judged(statement: Statement, index: int, results: Results, scope: Scope) -> dict[str, Any]:
    try:
        estimate = statement.effect.estimate(results, scope)
    except ConfigError as error:
        raise error.within(place(index)) from None
    return _row(statement.bounds, estimate)


def _row(bounds: Bounds, estimate: Estimate) -> dict[str, Any]:
    value, low, high, seeds = estimate.interval
    return {
        "text": bounds.text,
        "effect": bounds.effect,
        "unit": estimate.unit,
        "estimate": finite(value),
        "low": finite(low),  # null: open, or no interval
        "high": finite(high),
        "seeds": seeds,
        "above": bounds.above,
        "below": bounds.below,
        "verdict": decide(estimate.interval, bounds),
        "notes": list(estimate.notes),
        "picture": estimate.picture.as_dict() if estimate.picture else None,
    }


def conclude(name: str, claim: ClaimConfig | None, scope: Scope, folder: Path) -> None:
    """Write the verdict of the finished experiment `name` into its folder, from results.csv and timing.json. Without a claim: nothing."""
    if claim is None:
        (folder / FILE).unlink(missing_ok=True)
        return
    verdict = judge(claim, read(folder / "results.csv"), scope)
    timing = json.loads((folder / "timing.json").read_text(encoding="utf-8"))
    write_json(folder / FILE, {"experiment": name, **verdict, "timing": timing})


def read_verdict(folder: str | Path) -> dict[str, Any] | None:
    """The verdict that a folder holds; None where there is none."""
    path = Path(folder) / FILE
    verdict: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return verdict
