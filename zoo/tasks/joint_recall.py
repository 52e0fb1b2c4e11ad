"""Multi-query joint recall (HAX, arXiv:2507.00449): the same key has another value in each context.

Layout: padding, begin, the whole table, separator, the whole table again in another order. The table: each context in random
order, its id followed by all keys in random order, each followed by its value. Labels stand at the keys of the second table.

    levels: 1    context key value key value ... context key value ...
    levels: 2    outer context, inner context key value ... inner context key value ... outer context ...
                 the same inner contexts in each outer one: a value depends on three ids, two of which may stand far before

Values are drawn independently, so that they may repeat. The contexts and keys of an example are a random choice of their ids.

Ids: 0 padding (in front), 1 begin, 2 separator; then as many for (outer contexts,) contexts and keys each; the last are the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from blocks.errors import ConfigError, require
from zoo.tasks.shared.base import IGNORE, Batch, batch, check_range, integers, placed, uniforms

SUMMARY = "joint recall: the same key has another value in each context; say the value of every key in every context"
BEGIN, SEPARATOR, CONTEXTS = 1, 2, 3  # two marks, first id of a context


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of one condition. The paper draws contexts and keys from 5 to 16: that is a mix of conditions."""

    vocab_size: int = 64  # marks, contexts, keys, values
    length: int = 128  # tokens that the model reads, the last value excluded
    contexts: int = 5  # with two levels: outer ones, and inner ones in each
    keys: int = 5  # in each context, the same ones
    values: int = 16  # ids of values
    levels: int = 1  # 1 (contexts) | 2 (contexts in contexts)

    def __post_init__(self) -> None:
        require(self.levels in (1, 2), "levels", self.levels, "must be 1 or 2")
        require(self.contexts >= 2, "contexts", self.contexts, "must be 2 or more", "mqar has no contexts")
        require(self.keys >= 1, "keys", self.keys, "must be positive")
        require(self.values >= 2, "values", self.values, "must be 2 or more")
        least = CONTEXTS + (1 + self.levels) * max(self.contexts, self.keys) + self.values
        rule = f"must be {least} or more: marks, as many ids for contexts as for keys, values"
        require(self.vocab_size >= least, "vocab_size", self.vocab_size, rule, "or fewer values")
        needed = 2 * self.table + 1
        if self.length < needed:
            rule = f"{self.contexts} contexts of {self.keys} keys on {self.levels} levels need {needed} tokens"
            raise ConfigError("length", self.length, rule, "or fewer contexts or keys")

    @property
    def outer(self) -> int:
        """Outer contexts."""
        return self.contexts if self.levels == 2 else 1

    @property
    def table(self) -> int:
        """Tokens of the table, once."""
        return self.outer * (self.levels - 1 + self.contexts * (1 + 2 * self.keys))

    @property
    def names(self) -> int:
        """Ids of keys, and of contexts on each level."""
        return (self.vocab_size - CONTEXTS - self.values) // (1 + self.levels)


class Order(NamedTuple):
    """An order in which the table is told. b examples, o outer contexts, c contexts, k keys."""

    outer: np.ndarray  # (b, o, 1, 1) which outer context
    inner: np.ndarray  # (b, o, c, 1) which context
    keys: np.ndarray  # (b, o, c, k) which key


def chance(config: Config) -> float:
    """A guess among all values."""
    return 1 / config.values


def without_context(config: Config) -> float:
    """Accuracy of who knows the values of a key in all contexts but not which context this is."""
    contexts = config.contexts * config.outer
    return 1 / contexts + (1 - 1 / contexts) / config.values


def generate(config: Config, seed: int, start: int, count: int) -> Batch:
    """Examples start .. start+count-1.

    info: length, contexts, keys (b,); distance (b, t), tokens back to the same key in the same context of the first table, 0
    where nothing is asked.
    """
    check_range(seed, start, count)
    o, c, k = config.outer, config.contexts, config.keys
    stream = ("joint_recall", seed, config.vocab_size, config.length, c, k, config.values, config.levels)
    values = integers(uniforms((*stream, "values"), start, count, o * c * k), config.values).reshape(count, o, c, k)
    values += config.vocab_size - config.values
    chosen = np.argsort(uniforms((*stream, "names"), start, count, 3 * config.names).reshape(count, 3, -1), axis=2, kind="stable")
    orders = [_order(config, uniforms((*stream, table), start, count, o + o * c + o * c * k)) for table in ("first", "second")]
    told = [_told(config, chosen, values, order) for order in orders]

    mark = np.ones((count, 1), dtype=np.int64)
    padding = 0 * np.tile(mark, config.length - 2 * config.table - 1)
    whole = np.concatenate([padding, BEGIN * mark, told[0], SEPARATOR * mark, told[1]], axis=1)
    first = padding.shape[1] + 1
    in_table = _places(config)
    rows = np.arange(count)[:, None, None, None]
    where = np.empty_like(values)
    where[(rows, *orders[0])] = first + in_table
    at = np.tile((first + config.table + 1 + in_table).reshape(1, -1), (count, 1))
    distance = at - where[(rows, *orders[1])].reshape(count, -1)
    info = {name: np.full(count, number) for name, number in (("length", config.length), ("contexts", c), ("keys", k))}
    info["distance"] = placed(at, distance, config.length, 0)
    answers = np.take_along_axis(whole, at + 1, 1)
    return batch(whole[:, :-1].copy(), placed(at, answers, config.length, IGNORE), info)


def _order(config: Config, u: np.ndarray) -> Order:
    """A random order of the contexts, and of the keys in each."""
    o, c, k = config.outer, config.contexts, config.keys
    parts = np.split(u, [o, o + o * c], axis=1)
    shapes = ((o,), (o, c), (o, c, k))
    outer, inner, keys = (np.argsort(part.reshape(-1, *shape), axis=-1, kind="stable") for part, shape in zip(parts, shapes, strict=True))
    return Order(outer[:, :, None, None], inner[..., None], keys)


def _told(config: Config, chosen: np.ndarray, values: np.ndarray, order: Order) -> np.ndarray:
    """(b, table): the table in this order. chosen (b, 3, names): the ids that contexts, keys and outer contexts have."""
    count, o, c, k = values.shape
    rows = np.arange(count)[:, None, None, None]
    context, key, outer = (chosen[rows, i, which] for i, which in enumerate((order.inner, order.keys, order.outer)))
    pairs = np.stack([CONTEXTS + config.names + key, values[(rows, *order)]], axis=-1).reshape(count, o, c, 2 * k)
    inner = np.concatenate([CONTEXTS + context, pairs], axis=3).reshape(count, o, -1)
    if config.levels == 1:
        return inner.reshape(count, -1)
    return np.concatenate([CONTEXTS + 2 * config.names + outer[:, :, :, 0], inner], axis=2).reshape(count, -1)


def _places(config: Config) -> np.ndarray:
    """(o, c, k): where in the table the keys stand."""
    per_context = 1 + 2 * config.keys
    per_outer = config.levels - 1 + config.contexts * per_context
    o, c, k = np.ogrid[: config.outer, : config.contexts, : config.keys]
    return o * per_outer + config.levels - 1 + c * per_context + 1 + 2 * k
