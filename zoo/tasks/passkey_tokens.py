"""Passkey retrieval in token form, for models trained on `mqar`: one key-value pair, a stretch of filler, the key again.

The ids and the two-token slots are those of `mqar` (keys 1 .. V/2-1, values V/2 .. V-1), so that a model that learnt recall
there can be asked how far back, and how deep in filler, it still finds one pair. The pair stands in the slot at the chosen
depth, the key in the last slot; the label, its value, at that same position.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blocks.errors import one_of, require
from zoo.tasks.shared.base import IGNORE, Batch, batch, check_range, fill, integers, uniforms

SUMMARY = "one key-value pair at a chosen depth of filler, its key asked for at the end (tokens, for models trained on mqar)"
FILLERS = ("zero", "noise")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of one condition."""

    vocab_size: int = 8192  # half of it keys, half values
    length: int = 256  # tokens, even
    depth: float | None = None  # share of the filler before the pair, 0 to 1; null: drawn for each example
    filler: str = "noise"  # zero (id 0) | noise (any id but the key: other keys and values distract)

    def __post_init__(self) -> None:
        require(self.vocab_size >= 4, "vocab_size", self.vocab_size, "must be 4 or more: keys 1..V/2-1, values V/2..V-1")
        require(self.length % 2 == 0, "length", self.length, "must be even: all is in two-token slots", f"try {self.length + 1}")
        require(self.length >= 4, "length", self.length, "must be 4 or more: the pair and the query")
        require(self.depth is None or 0 <= self.depth <= 1, "depth", self.depth, "is a share of the filler, 0 to 1")
        one_of("filler", self.filler, FILLERS)


def chance(config: Config) -> float:
    """A guess among all values."""
    return 1 / (config.vocab_size - config.vocab_size // 2)


def generate(config: Config, seed: int, start: int, count: int) -> Batch:
    """Examples start .. start+count-1. info (b,): length, depth (really), distance (tokens from the query back to the key)."""
    check_range(seed, start, count)
    stream = ("passkey_tokens", seed, config.vocab_size, config.length)
    draws = uniforms((*stream, "pair"), start, count, 3)
    half, last = config.vocab_size // 2, config.length - 2
    key, value = 1 + integers(draws[:, 0], half - 1), half + integers(draws[:, 1], config.vocab_size - half)
    depths = draws[:, 2] if config.depth is None else np.full(count, config.depth)
    free = config.length // 2 - 2  # slots of filler
    at = 2 * np.floor(depths * free + 0.5).astype(np.int64)

    inputs = fill(config.filler, uniforms((*stream, "filler"), start, count, config.length), config.vocab_size, key[:, None])
    labels = np.full_like(inputs, IGNORE)
    rows = np.arange(count)
    inputs[rows, at], inputs[rows, at + 1] = key, value
    inputs[:, last], labels[:, last] = key, value
    info = {"length": np.full(count, config.length), "depth": at / max(2 * free, 1), "distance": last - at}
    return batch(inputs, labels, info)
