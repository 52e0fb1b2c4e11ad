"""In-context recall, plain, noisy and fuzzy (MAD, arXiv:2403.17844): a stream of key-value pairs under a map drawn for each
example; each time a key comes that stood there before, its value is asked for.

    [padding] key value key value ... key value      the last pair was always shown before; its key is of the longest size

noisy: a share of the pairs is replaced by noise ids, as many as the pair had. fuzzy: a key or a value is a motif of several
different ids side by side; MAD trains with key motifs of 1 to 3 ids and tests with 3. Values may be shared among keys. Each
value follows its key, so the label of a position is the next token; only values are scored, and only where they are known:
a key shorter than the longest might go on, so there the value's first id isn't asked for (its other ids are).

Ids: 0 padding (in front), then keys, then values (as many, or one more), then noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from blocks.errors import require
from zoo.tasks.shared.base import IGNORE, Batch, batch, check_range, integers, uniforms

SUMMARY = "in-context recall (plain, noisy, fuzzy): a stream of key-value pairs; say the value of a key seen before"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of one condition."""

    vocab_size: int = 16  # padding, keys, values, noise
    length: int = 127  # tokens that the model reads: all pairs but the last value's last id
    noise: float = 0.0  # share of the pairs replaced by noise, below 1
    noise_ids: int = 0  # ids that are noise and nothing else
    key_motif: tuple[int, int] = (1, 1)  # least and most ids of a key, all different
    value_motif: tuple[int, int] = (1, 1)  # least and most ids of a value, all different

    def __post_init__(self) -> None:
        require(0 <= self.noise < 1, "noise", self.noise, "is the share of the pairs replaced, 0 or more and below 1")
        rule = "must be positive with noise, and 0 without" if self.noise else "must be 0 without noise"
        require(self.noise_ids >= 0 and (self.noise_ids > 0) == (self.noise > 0), "noise_ids", self.noise_ids, rule)
        least = 5 + self.noise_ids
        require(self.vocab_size >= least, "vocab_size", self.vocab_size, f"must be {least} or more: padding, two keys, two values, noise")
        for name, motif, ids in (("key_motif", self.key_motif, self.keys), ("value_motif", self.value_motif, self.values)):
            require(1 <= motif[0] <= motif[1], name, motif, "is the least and the most ids, 1 or more", "for example [1, 3]")
            require(motif[1] <= ids, name, motif, f"needs {motif[1]} different ids, there are {ids}", "a larger vocab_size")
            require(motif[1] <= 8, name, motif, "must be 8 ids at most")
        needed = 2 * self.longest - 1
        require(self.length >= needed, "length", self.length, f"must be {needed} or more: a pair twice")

    @property
    def keys(self) -> int:
        """Ids that keys are made of."""
        return (self.vocab_size - 1 - self.noise_ids) // 2

    @property
    def values(self) -> int:
        """Ids that values are made of."""
        return self.vocab_size - 1 - self.noise_ids - self.keys

    @property
    def longest(self) -> int:
        """Most ids of a pair."""
        return self.key_motif[1] + self.value_motif[1]


class Pairs(NamedTuple):
    """The pairs of each row in their order. b examples, p pairs, k and v the longest motifs."""

    keys: np.ndarray  # (b, p, k) ids
    values: np.ndarray  # (b, p, v) ids
    key_sizes: np.ndarray  # (b, p) ids that count
    value_sizes: np.ndarray  # (b, p)
    noisy: np.ndarray  # (b, p) bool: replaced by noise
    first: np.ndarray  # (b, p) the pair that showed this key first


def chance(config: Config) -> float:
    """A guess among the values' ids."""
    return 1 / config.values


def generate(config: Config, seed: int, start: int, count: int) -> Batch:
    """Examples start .. start+count-1.

    info: length, keys (b,), different keys shown; distance (b, t), tokens back to the same place of the first pair with this
    key, 0 where nothing is asked.
    """
    check_range(seed, start, count)
    pairs = _in_order(_drawn(config, seed, start, count), config, seed, start, count)
    block, used, scored = _block(config, pairs)
    # Each used cell of the block (b, p+1, k+v) goes to its own position; the row's last id is at position `length`.
    total = used.sum((1, 2))
    at = config.length + 1 - total[:, None] + used.reshape(count, -1).cumsum(1) - 1
    rows = np.broadcast_to(np.arange(count)[:, None], at.shape)
    mask, asked = used.reshape(count, -1), scored.reshape(count, -1)
    whole = np.zeros((count, config.length + 1), dtype=np.int64)
    whole[rows[mask], at[mask]] = block.reshape(count, -1)[mask]
    labels = np.full((count, config.length), IGNORE, dtype=np.int64)
    labels[rows[asked], at[asked] - 1] = block.reshape(count, -1)[asked]
    shown = np.take_along_axis(at.reshape(block.shape), pairs.first[:, :, None], 1)
    distance = np.zeros_like(labels)
    distance[rows[asked], at[asked] - 1] = (at - shown.reshape(count, -1))[asked]
    fresh = (pairs.first == np.arange(pairs.first.shape[1])) & ~pairs.noisy & (pairs.key_sizes > 0)
    return batch(whole[:, :-1].copy(), labels, {"length": np.full(count, config.length), "keys": fresh.sum(1), "distance": distance})


def _drawn(config: Config, seed: int, start: int, count: int) -> Pairs:
    """More pairs than fit, each with a key and a value of its own; the probe, a repetition of an early one, is the last."""
    p = (config.length + 1) // (config.key_motif[0] + config.value_motif[0])
    (key_least, k), (value_least, v) = config.key_motif, config.value_motif
    columns = k + v + 3
    u = uniforms((*_stream(config, seed), "pairs"), start, count, p * columns + 1)
    cells = u[:, 1:].reshape(count, p, columns)
    key_sizes = key_least + integers(cells[..., 0], k - key_least + 1)
    value_sizes = value_least + integers(cells[..., 1], v - value_least + 1)
    keys = 1 + _motifs(cells[..., 3 : 3 + k], config.keys)
    values = 1 + config.keys + _motifs(cells[..., 3 + k :], config.values)
    noisy = cells[..., 2] < config.noise
    sure = (config.length + 1) // config.longest - 1  # pairs that fit before the probe, whatever their sizes
    probe = integers(u[:, :1], sure)
    np.put_along_axis(noisy, probe, False, 1)
    np.put_along_axis(key_sizes, probe, k, 1)
    parts = (keys, values, key_sizes, value_sizes, noisy)
    last = [np.take_along_axis(part, probe.reshape(count, 1, *(1,) * (part.ndim - 2)), 1) for part in parts]
    keys, values, key_sizes, value_sizes, noisy = (np.concatenate([a, b], axis=1) for a, b in zip(parts, last, strict=True))
    return Pairs(keys, values, key_sizes, value_sizes, noisy, _first(keys, key_sizes, noisy))


def _motifs(u: np.ndarray, high: int) -> np.ndarray:
    """(..., m) from uniforms: m different numbers of [0, high) each."""
    out = np.empty(u.shape, dtype=np.int64)
    for i in range(u.shape[-1]):
        rank = integers(u[..., i], high - i)
        for taken in np.moveaxis(np.sort(out[..., :i], axis=-1), -1, 0):
            rank += rank >= taken
        out[..., i] = rank
    return out


def _first(keys: np.ndarray, sizes: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """(b, p): the first pair of the row with the same key; noise is like nothing else."""
    p, k = keys.shape[1:]
    keys = np.where(np.arange(k) < sizes[..., None], keys, 0)
    keys[..., 0] = np.where(noisy, -1 - np.arange(p), keys[..., 0])
    out = np.empty(sizes.shape, dtype=np.int64)
    for row, motifs in enumerate(keys):
        _, index, inverse = np.unique(motifs, axis=0, return_index=True, return_inverse=True)
        out[row] = index[inverse.reshape(-1)]
    return out


def _in_order(pairs: Pairs, config: Config, seed: int, start: int, count: int) -> Pairs:
    """Values as the first pair with the key has them, noise written over what it replaces, and what doesn't fit emptied."""
    take = pairs.first[..., None]
    values, value_sizes = np.take_along_axis(pairs.values, take, 1), np.take_along_axis(pairs.value_sizes, pairs.first, 1)
    width = values.shape[2]
    noise = uniforms((*_stream(config, seed), "noise"), start, count, pairs.noisy.size // count * config.longest)
    ids = config.vocab_size - config.noise_ids + integers(noise, max(config.noise_ids, 1)).reshape(*pairs.noisy.shape, -1)
    values = np.where(pairs.noisy[..., None], ids[..., :width], values)
    keys = np.where(pairs.noisy[..., None], ids[..., width:], pairs.keys)
    sizes = pairs.key_sizes + value_sizes
    fits = sizes[:, :-1].cumsum(1) + sizes[:, -1:] <= config.length + 1
    fits = np.concatenate([fits, np.ones((count, 1), dtype=bool)], axis=1)
    return Pairs(keys, values, pairs.key_sizes * fits, value_sizes * fits, pairs.noisy, pairs.first)


def _block(config: Config, pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(b, p, k+v) ids, which of them are used, and which of them are asked for."""
    k, v = config.key_motif[1], config.value_motif[1]
    in_key = np.arange(k) < pairs.key_sizes[..., None]
    in_value = np.arange(v) < pairs.value_sizes[..., None]
    again = ~pairs.noisy & (pairs.first < np.arange(pairs.first.shape[1]))
    known = (pairs.key_sizes == k)[..., None] | (np.arange(v) > 0)
    scored = np.concatenate([np.zeros_like(in_key), in_value & again[..., None] & known], axis=2)
    return np.concatenate([pairs.keys, pairs.values], axis=2), np.concatenate([in_key, in_value], axis=2), scored


def _stream(config: Config, seed: int) -> tuple[object, ...]:
    shape = (config.vocab_size, config.length, config.noise, config.noise_ids, tuple(config.key_motif), tuple(config.value_motif))
    return ("in_context_recall", seed, *shape)
