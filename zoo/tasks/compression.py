"""Compression: random tokens, none more likely than another, then each of them is asked for by its place, in random order.

After MAD (arXiv:2403.17844), where a small decoder must rebuild the whole sequence from the model's output at one compression
token. A language model has no such decoder: here the compression token (id 0) is followed by one position id for each token, in
random order, and the label, the token of that place, is at the position id itself. What isn't kept in the state after the
compression token can't be said; attention, of course, can still look back. A decoder head of one's own finds the tokens in
info["data"].

Ids: 0 the compression token, 1 .. symbols the data, then one id a place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blocks.errors import require
from zoo.tasks.shared.base import IGNORE, Batch, batch, check_range, distinct, integers, uniforms

SUMMARY = "compression: random tokens, each then asked for by its place, in random order"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of one condition. MAD's 32 tokens with the compression token are length 63."""

    vocab_size: int = 64  # the compression token, the symbols and one id a place
    length: int = 63  # tokens, odd: items, the compression token, as many position ids
    symbols: int = 15  # different data ids

    def __post_init__(self) -> None:
        require(self.length % 2 == 1, "length", self.length, "must be odd: items, one token, as many questions", f"try {self.length + 1}")
        require(self.length >= 3, "length", self.length, "must be 3 or more")
        require(self.symbols >= 2, "symbols", self.symbols, "must be 2 or more")
        needed = 1 + self.symbols + self.items
        rule = f"must be {needed} or more: the compression token, {self.symbols} symbols, {self.items} places"
        require(self.vocab_size >= needed, "vocab_size", self.vocab_size, rule, "or a shorter length")

    @property
    def items(self) -> int:
        """Tokens to keep."""
        return (self.length - 1) // 2


def chance(config: Config) -> float:
    """A guess among the symbols."""
    return 1 / config.symbols


def generate(config: Config, seed: int, start: int, count: int) -> Batch:
    """Examples start .. start+count-1.

    info: length (b,); data (b, items), the tokens to keep; distance (b, t), tokens from a question back to what it asks for, 0
    where nothing is asked.
    """
    check_range(seed, start, count)
    n = config.items
    draws = uniforms(("compression", seed, config.length, config.symbols), start, count, 2 * n)
    data, order = 1 + integers(draws[:, :n], config.symbols), distinct(draws[:, n:], n)
    inputs = np.concatenate([data, np.zeros((count, 1), dtype=np.int64), 1 + config.symbols + order], axis=1)
    labels = np.full_like(inputs, IGNORE)
    labels[:, n + 1 :] = np.take_along_axis(data, order, 1)
    distance = np.zeros_like(inputs)
    distance[:, n + 1 :] = n + 1 + np.arange(n) - order
    return batch(inputs, labels, {"length": np.full(count, config.length), "data": data, "distance": distance})
