"""Memorization: keys whose values never stand in the context. They must be learnt by heart, into the weights.

Layout (MAD, arXiv:2403.17844): a random key (ids 1 .. V/2-1), the insert token (id 0), another key, ...; the label, the key's
value (V/2 .. V-1, a different one for each key), is at the insert token. One map of keys to values for all examples, in training and in
evaluation, under every seed of `generate`: it depends on vocab_size and `map` alone. The control of the recall tasks: no memory
of the context helps here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blocks.errors import require
from zoo.tasks.shared.base import IGNORE, Batch, batch, check_range, distinct, integers, uniforms

SUMMARY = "memorization: keys of a fixed map whose values are never shown, to be learnt into the weights"
INSERT = 0


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of one condition."""

    vocab_size: int = 256  # the insert token, the keys and the values
    length: int = 32  # tokens, even: a key and the insert token each
    map: int = 0  # which map of keys to values

    def __post_init__(self) -> None:
        require(self.vocab_size >= 6, "vocab_size", self.vocab_size, "must be 6 or more: at least two keys")
        require(self.length % 2 == 0, "length", self.length, "must be even: a key and the insert token each", f"try {self.length + 1}")
        require(self.length >= 2, "length", self.length, "must be 2 or more")
        require(self.map >= 0, "map", self.map, "must be 0 or more")

    @property
    def keys(self) -> int:
        """Different keys."""
        return self.vocab_size // 2 - 1


def chance(config: Config) -> float:
    """A guess among the values of the map."""
    return 1 / config.keys


def values(config: Config) -> np.ndarray:
    """(keys,) int64: the value of each key; that of key id i is at i - 1."""
    half = config.vocab_size // 2
    draws = uniforms(("memorization", "map", config.vocab_size, config.map), 0, 1, config.keys)
    return half + distinct(draws, config.vocab_size - half)[0]


def generate(config: Config, seed: int, start: int, count: int) -> Batch:
    """Examples start .. start+count-1. info: length (b,); key (b, t), the id asked for, 0 where nothing is."""
    check_range(seed, start, count)
    draws = uniforms(("memorization", seed, config.vocab_size, config.length, config.map), start, count, config.length // 2)
    drawn = integers(draws, config.keys)
    inputs = np.full((count, config.length), INSERT, dtype=np.int64)
    labels, asked = np.full_like(inputs, IGNORE), np.zeros_like(inputs)
    inputs[:, ::2] = asked[:, 1::2] = 1 + drawn
    labels[:, 1::2] = values(config)[drawn]
    return batch(inputs, labels, {"length": np.full(count, config.length), "key": asked})
