"""Results that nobody trained: the rows and the scope of an experiment with known effects."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from train.claims.config import ClaimConfig
from train.claims.scope import Scope
from train.claims.verdict import judge
from train.measure.results import Record, joined
from zoo.measures.shared.condition import Condition

KIB = 1024


def scope(seeds: int, sizes: Mapping[str, float], lengths: Sequence[int] = (64,)) -> Scope:
    """Parts p64, ... of these training lengths, each with all models (name -> KiB of state) and the measure m."""
    parts = [f"p{length}" for length in lengths]
    return Scope(
        seeds=tuple(range(seeds)),
        models=dict.fromkeys(parts, tuple(sizes)),
        measures={part: {"training": "training", "m": "recall"} for part in parts},
        lengths=dict(zip(parts, lengths, strict=True)),
        numbers={(part, model): {"state_bytes": KIB * size, "d_model": 8.0} for part in parts for model, size in sizes.items()},
    )


def records(values: Mapping[str, ArrayLike], part: str = "p64", condition: str = "pairs=4", metric: str = "accuracy") -> list[Record]:
    """model -> its number in each seed."""
    rows = [
        Record("x", model, str(seed), "m", Condition.parse(condition), metric, float(v), float("nan"), float("nan"), 1, part)
        for model, numbers in values.items()
        for seed, v in enumerate(np.asarray(numbers, dtype=np.float64))
    ]
    return [*rows, *joined(rows)]


def judged(statement: Mapping[str, Any], rows: Sequence[Record], where: Scope) -> dict[str, Any]:
    """The row of verdict.json of one statement."""
    claim = ClaimConfig(finding="f", paper="p", scaled="s", statements=({"text": "t", **statement},))
    row: dict[str, Any] = judge(claim, rows, where)["statements"][0]
    return row
