"""Loss on held-out documents: numbers only."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from train.report.figures.base import Picture, Shown

HEADLINE = (Shown("bits_per_byte", None, "bits/byte"), Shown("nll", None, "nats/token"))


def pictures(name: str, table: pd.DataFrame, models: Sequence[str], length: int) -> list[Picture]:
    """None."""
    return []
