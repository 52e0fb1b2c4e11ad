"""Which heads look where the text said the same before."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from train.report.figures.shared import attention_heads
from train.report.figures.shared.picture import Picture

MAPS = {  # metric -> title, text
    "prefix_held": (
        "prefix matching",
        "Weight on the token after the previous occurrence of the query's token, in random tokens said twice (on all keys that hold it, "
        "where a short convolution stands before the keys).",
    ),
    "previous_token": ("previous token", "Weight on the token just before the query."),
}


def pictures(name: str, table: pd.DataFrame, models: Sequence[str], length: int) -> list[Picture]:
    """A map of weights a kind of head, and one of n-gram heads for each n."""
    drawn = []
    for metric, (title, text) in MAPS.items():
        rows = attention_heads.joined(table, metric)
        if len(rows):
            chance = attention_heads.joined(table, f"chance_{metric}")["value"].mean()
            text = f"{text} Even attention gives {chance:.2f}."
            drawn.append(Picture(f"{name}: {title}", text, attention_heads.maps(rows, models, "attention weight")))
    excess = attention_heads.joined(table, "ngram_excess")
    for n, rows in excess.groupby("_n") if len(excess) else ():
        text = f"Weight on what followed the last {_tokens(int(n))} before, beyond what {_shorter(int(n))}."
        drawn.append(Picture(f"{name}: {n}-gram heads", text, attention_heads.maps(rows, models, "excess weight")))
    return drawn


def _shorter(n: int) -> str:
    return "even attention gives" if n == 1 else f"attention to matches of the last {_tokens(n - 1)} gives"


def _tokens(n: int) -> str:
    return "token" if n == 1 else f"{n} tokens"
