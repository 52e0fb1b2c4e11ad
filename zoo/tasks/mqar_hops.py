"""Associative recall over several hops: the value of a key is a key itself, and so on; say where the chain of each key ends.

`chains` chains of `hops` pairs each: k0 -> k1, k1 -> k2, ..., k(h-1) -> value, all chains' pairs in one random order. The rest is
as in `mqar`: two-token slots of filler, each asked key at the first position of its slot, the label, the end of its chain, at
that same position. Keys are ids 1 .. V/2-1, ends V/2 .. V-1, all different, so that an end is known by its id. With one
hop it is mqar. A layer that looks up once can't chain: n hops need n look-ups, one after the other.

    ask: first   the first key of each chain: every answer is `hops` away
    ask: every   all keys: answers are 1 to `hops` away, see info["hops"]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blocks.errors import ConfigError, one_of, require
from zoo.tasks.shared.base import IGNORE, Batch, batch, check_range, distinct, fill, placed, uniforms, weighted

SUMMARY = "associative recall over several hops: values are keys themselves; say where each key's chain ends"
FILLERS = ("zero", "random", "noise")
ASKS = ("first", "every")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of one condition."""

    vocab_size: int = 1024  # half of it keys, half ends of chains
    length: int = 128  # tokens, even
    chains: int = 4  # chains of pairs
    hops: int = 2  # pairs of a chain
    ask: str = "first"  # first (key of each chain) | every (key)
    power: float = 1.0  # of the law of the slots, see mqar; 1 is uniform
    filler: str = "random"  # what fills the rest: zero | random (any id, keys too) | noise (any id but this example's keys)

    def __post_init__(self) -> None:
        require(self.chains >= 1, "chains", self.chains, "must be positive")
        require(self.hops >= 1, "hops", self.hops, "must be positive")
        require(self.length % 2 == 0, "length", self.length, "must be even: all is in two-token slots", f"try {self.length + 1}")
        require(self.power > 0, "power", self.power, "must be positive", "1 is uniform")
        one_of("ask", self.ask, ASKS)
        one_of("filler", self.filler, FILLERS)
        rule = f"must be {2 * self.pairs + 2} or more: ids 1..V/2-1 are the {self.pairs} keys"
        require(self.vocab_size // 2 - 1 >= self.pairs, "vocab_size", self.vocab_size, rule, "or fewer chains or hops")
        needed = 2 * (self.pairs + self.asked)
        if self.length < needed:
            rule = f"{self.chains} chains of {self.hops} hops and {self.asked} questions need {needed} tokens"
            raise ConfigError("length", self.length, rule, "or fewer chains or hops")

    @property
    def pairs(self) -> int:
        """Key-value pairs."""
        return self.chains * self.hops

    @property
    def asked(self) -> int:
        """Questions."""
        return self.chains if self.ask == "first" else self.pairs


def chance(config: Config) -> float:
    """A guess among the ends of the chains."""
    return 1 / config.chains


def generate(config: Config, seed: int, start: int, count: int) -> Batch:
    """Examples start .. start+count-1.

    info: length, chains (b,); hops (b, t), look-ups from a question to its answer; distance (b, t), tokens back to the pair with the
    answer; both 0 where nothing is asked.
    """
    check_range(seed, start, count)
    c, h, n = config.chains, config.hops, config.pairs
    sizes = ("mqar_hops", seed, config.vocab_size, config.length, c, h)
    draws = uniforms((*sizes, "pairs"), start, count, 2 * n + c)
    keys = 1 + distinct(draws[:, :n], config.vocab_size // 2 - 1)  # chain after chain, each from its first key on
    ends = config.vocab_size // 2 + distinct(draws[:, n : n + c], config.vocab_size - config.vocab_size // 2)
    follows = np.concatenate([keys.reshape(count, c, h)[:, :, 1:], ends[:, :, None]], axis=2).reshape(count, n)
    where = 2 * distinct(draws[:, n + c :], n)  # of each pair

    inputs = fill(config.filler, _noise(config, sizes, start, count), config.vocab_size, keys)
    np.put_along_axis(inputs, where, keys, 1)
    np.put_along_axis(inputs, where + 1, follows, 1)
    asked = np.arange(0, n, n // config.asked)
    slots = config.length // 2 - n
    law = np.arange(1, slots + 1) ** (config.power - 1.0)
    at = 2 * n + 2 * weighted(uniforms((*sizes, "slots"), start, count, slots), law, config.asked)
    np.put_along_axis(inputs, at, keys[:, asked], 1)
    chain = asked // h
    hops = np.tile(h - asked % h, (count, 1))
    info = {"length": np.full(count, config.length), "chains": np.full(count, c), "hops": placed(at, hops, config.length, 0)}
    info["distance"] = placed(at, at - where[:, h * chain + h - 1], config.length, 0)
    return batch(inputs, placed(at, ends[:, chain], config.length, IGNORE), info)


def _noise(config: Config, sizes: tuple[str | int, ...], start: int, count: int) -> np.ndarray:
    if config.filler == "zero":
        return np.empty((count, config.length))
    return uniforms((*sizes, "filler"), start, count, config.length)
