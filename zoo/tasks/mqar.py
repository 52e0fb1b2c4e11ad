"""Multi-query associative recall: many key-value pairs, then their keys again in random places; say each value.

Layout (Zoology, arXiv:2312.04927): pairs k1 v1 k2 v2 ... from position 0; the rest is two-token slots, and each key is placed
at the first position of its slot, drawn without replacement with p(slot j) ~ j^(power-1), j = 1, 2, ... The label, the key's
value, sits at that same position; the value is not shown again. Keys are ids 1 .. V/2-1, values V/2 .. V-1, all different.

With `overwrite`, that share of the keys is given a new value, in random order, in pairs that follow the first ones: the
answer is the latest value. It tells memories that erase from memories that only add.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from blocks.errors import ConfigError, one_of, require
from zoo.tasks.shared.base import IGNORE, Batch, batch, check_range, distinct, fill, placed, uniforms, weighted

SUMMARY = "multi-query associative recall: key-value pairs, then the keys again; overwrite asks for the latest value"
FILLERS = ("zero", "random", "noise")

# (length, pairs). Zoology's: what Based (arXiv:2402.18668) trained and tested on; the tests go on to longer and denser ones.
TRAIN_SIZES = ((64, 4), (128, 8), (256, 16), (256, 32), (256, 64))
TEST_SIZES = ((64, 4), (64, 8), (64, 16), (128, 32), (256, 64), (512, 128), (1024, 256))
# What two CPU cores can learn in a minute (vocab_size 1024), and tests beyond it in length and number.
SMALL_TRAIN_SIZES = ((128, 4), (128, 8), (128, 16), (128, 32))
SMALL_TEST_SIZES = ((128, 4), (128, 8), (128, 16), (128, 32), (256, 32), (256, 64), (512, 64), (512, 128))


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of one condition."""

    vocab_size: int = 8192  # half of it keys, half values
    length: int = 64  # tokens, even
    pairs: int = 4  # key-value pairs, all of them asked for
    power: float | None = None  # of the law of the slots; 1 is uniform; null: 0.01, and 1 with overwrite
    filler: str = "random"  # what fills the rest: zero | random (any id, keys too) | noise (any id but this example's keys)
    overwrite: float = 0.0  # share of the keys that get a new value, 0 to 1

    def __post_init__(self) -> None:
        require(self.vocab_size >= 4, "vocab_size", self.vocab_size, "must be 4 or more: keys 1..V/2-1, values V/2..V-1")
        require(self.pairs >= 1, "pairs", self.pairs, "must be positive")
        require(self.length % 2 == 0, "length", self.length, "must be even: all is in two-token slots", f"try {self.length + 1}")
        require(0 <= self.overwrite <= 1, "overwrite", self.overwrite, "is the share of the keys re-assigned, 0 to 1")
        require(self.power is None or self.power > 0, "power", self.power, "must be positive", "0.01 is Zoology's, 1 is uniform")
        one_of("filler", self.filler, FILLERS)
        require(self.overwrite == 0 or self.overwritten > 0, "overwrite", self.overwrite, f"re-assigns none of {self.pairs} pairs")
        self._check_vocabulary()
        needed = 4 * self.pairs + 2 * self.overwritten
        if self.length < needed:
            most = int(self.length // (4 + 2 * self.overwrite))
            raise ConfigError("length", self.length, f"{self.pairs} pairs need {needed} tokens", f"or pairs of at most {most}")

    def _check_vocabulary(self) -> None:
        most, values = self.vocab_size // 2 - 1, self.vocab_size - self.vocab_size // 2
        require(self.pairs <= most, "pairs", self.pairs, f"vocab_size {self.vocab_size} has only {most} keys", "a larger vocab_size")
        wanted = self.pairs + self.overwritten
        require(wanted <= values, "pairs", self.pairs, f"{wanted} values are wanted, vocab_size {self.vocab_size} has {values}")

    @property
    def overwritten(self) -> int:
        """The number of keys that get a new value."""
        return int(self.overwrite * self.pairs + 0.5)

    @property
    def slots(self) -> int:
        """Two-token slots after the pairs."""
        return self.length // 2 - self.pairs - self.overwritten


def usual_sizes(vocab_size: int, overwrite: float) -> list[tuple[int, int]]:
    """Those of SMALL_TEST_SIZES for which the ids and the tokens suffice; the smallest, if they do for none."""
    fit = [(t, k) for t, k in SMALL_TEST_SIZES if k * (1 + overwrite) <= vocab_size // 2 - 1 and k * (4 + 2 * overwrite) <= t]
    return fit or [SMALL_TEST_SIZES[0]]


def conditions(config: Config, sizes: Sequence[tuple[int, int]]) -> list[Config]:
    """`config` at each (length, pairs)."""
    return [replace(config, length=length, pairs=pairs) for length, pairs in sizes]


def chance(config: Config) -> float:
    """A guess among the values that are valid answers in the example."""
    return 1 / config.pairs


def generate(config: Config, seed: int, start: int, count: int) -> Batch:
    """Examples start .. start+count-1.

    info: length, pairs, overwritten (b,); distance (b, t), tokens from a query back to the latest writing of its key, 0 where
    nothing is asked; stale (b, t), the value that an overwritten key had before, IGNORE elsewhere.
    """
    check_range(seed, start, count)
    k, u = config.pairs, config.overwritten
    sizes = ("mqar", seed, config.vocab_size, config.length, k, u)
    draws = uniforms((*sizes, "pairs"), start, count, 3 * k + u)
    keys = 1 + distinct(draws[:, :k], config.vocab_size // 2 - 1)
    values = config.vocab_size // 2 + distinct(draws[:, k : 2 * k + u], config.vocab_size - config.vocab_size // 2)
    changed = distinct(draws[:, 2 * k + u :], k)[:, :u]  # which keys are written again, in this order
    filler_draws = (
        uniforms((*sizes, "filler"), start, count, config.length) if config.filler != "zero" else np.empty((count, config.length))
    )
    inputs = fill(config.filler, filler_draws, config.vocab_size, keys)
    inputs[:, 0 : 2 * k : 2], inputs[:, 1 : 2 * k : 2] = keys, values[:, :k]
    written = slice(2 * k, 2 * (k + u))
    inputs[:, written][:, ::2], inputs[:, written][:, 1::2] = np.take_along_axis(keys, changed, 1), values[:, k:]

    at = 2 * (k + u) + 2 * _slots(config, sizes, start, count)
    latest, where = values[:, :k].copy(), np.tile(2 * np.arange(k), (count, 1))
    np.put_along_axis(latest, changed, values[:, k:], 1)
    np.put_along_axis(where, changed, np.tile(2 * (k + np.arange(u)), (count, 1)), 1)
    np.put_along_axis(inputs, at, keys, 1)
    old = np.where(latest != values[:, :k], values[:, :k], IGNORE)
    info = {name: np.full(count, number) for name, number in (("length", config.length), ("pairs", k), ("overwritten", u))}
    info |= {"distance": placed(at, at - where, config.length, 0), "stale": placed(at, old, config.length, IGNORE)}
    return batch(inputs, placed(at, latest, config.length, IGNORE), info)


def _slots(config: Config, sizes: tuple[str | int, ...], start: int, count: int) -> np.ndarray:
    power = config.power if config.power is not None else (1.0 if config.overwrite else 0.01)
    weights = np.arange(1, config.slots + 1) ** (power - 1.0)
    return weighted(uniforms((*sizes, "slots"), start, count, config.slots), weights, config.pairs)
