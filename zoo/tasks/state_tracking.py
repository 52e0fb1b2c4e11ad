"""State tracking: each token is a permutation; what is the product of all those read so far?

The word problem of a finite group (Merrill et al., arXiv:2404.08819; Grazzi et al., arXiv:2411.12537). Token and state ids are the
elements of the group, the permutations in lexicographic order, 0 the identity; the state after a token is that token's permutation
applied after the state before it: state[i] -> token[state[i]]. parity (two elements: is the number of ones odd?) needs a
negative eigenvalue in a linear recurrence, S3 a non-diagonal state; A5 and S5, not solvable, are complete for NC1. The label stands at the
position where the last of its tokens is read: there is no separate question.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np

from blocks.errors import one_of, require
from zoo.tasks.shared.base import IGNORE, Batch, batch, check_range, integers, uniforms

SUMMARY = "state tracking: the product of all permutations read so far (parity, S3, S4, A4, S5, A5)"
GROUPS = {"parity": (2, False), "s3": (3, False), "a4": (4, True), "s4": (4, False), "a5": (5, True), "s5": (5, False)}  # points, even only
ASKS = ("every", "end")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of one condition."""

    vocab_size: int = 128  # ids; the first ones are the elements of the group: 2, 6, 12, 24, 60, 120
    length: int = 64  # tokens
    group: str = "s3"  # parity | s3 | a4 | s4 | a5 | s5
    moves: int | None = None  # most points that a token moves: 2 = swaps and the identity, 3 = also 3-cycles; null: all elements
    ask: str = "every"  # every (position) | end (the last position only)

    def __post_init__(self) -> None:
        one_of("group", self.group, tuple(GROUPS))
        one_of("ask", self.ask, ASKS)
        order = len(elements(self.group))
        require(self.vocab_size >= order, "vocab_size", self.vocab_size, f"must be {order} or more: the elements of {self.group}")
        require(self.length >= 1, "length", self.length, "must be positive")
        if self.moves is not None:
            points, even = GROUPS[self.group]
            least = 3 if even else 2
            rule = f"must be {least} to {points} for {self.group}: points that a token moves at most"
            require(least <= self.moves <= points, "moves", self.moves, rule, "null for all elements")


@lru_cache
def elements(group: str) -> np.ndarray:
    """(order, points) int64: the permutations of the group, in lexicographic order."""
    points, even = GROUPS[group]
    symmetric = np.array(list(permutations(range(points))), dtype=np.int64)
    later = np.triu(np.ones((points, points), dtype=bool), 1)
    inversions = ((symmetric[:, :, None] > symmetric[:, None, :]) & later).sum((1, 2))
    return symmetric[inversions % 2 == 0] if even else symmetric


@lru_cache
def products(group: str) -> np.ndarray:
    """(order, order) int64: [x, y] is the element that applies y, then x."""
    members = elements(group)
    weights = members.shape[1] ** np.arange(members.shape[1] - 1, -1, -1)
    return np.searchsorted(members @ weights, members[:, members] @ weights)


def tokens(config: Config) -> np.ndarray:
    """(n,) int64: the elements that tokens are drawn from, all equally likely."""
    members = elements(config.group)
    moved = (members != np.arange(members.shape[1])).sum(1)
    return np.flatnonzero(moved <= (config.moves if config.moves is not None else members.shape[1]))


def chance(config: Config) -> float:
    """The likeliest state at each position, the tokens not read."""
    drawn, table = tokens(config), products(config.group)
    step = np.zeros(table.shape)  # [after, before]
    for x in drawn:
        step[table[x], np.arange(len(table))] += 1 / len(drawn)
    law, best = step[:, 0], []
    for _ in range(config.length):
        best.append(law.max())
        before, law = law, step @ law
        if abs(law - before).max() < 1e-12:  # all further ones are the same
            break
    best += [best[-1]] * (config.length - len(best))
    return float(best[-1] if config.ask == "end" else np.mean(best))


def generate(config: Config, seed: int, start: int, count: int) -> Batch:
    """Examples start .. start+count-1. info: length (b,); steps (b, t), tokens that made the state asked for, 0 where none is."""
    check_range(seed, start, count)
    drawn = tokens(config)
    u = uniforms(("state_tracking", seed, config.group, len(drawn), config.length), start, count, config.length)
    inputs = drawn[integers(u, len(drawn))]
    labels = _running(inputs, products(config.group))
    steps = np.tile(np.arange(1, config.length + 1), (count, 1))
    if config.ask == "end":
        labels[:, :-1] = IGNORE
        steps[:, :-1] = 0
    return batch(inputs, labels, {"length": np.full(count, config.length), "steps": steps})


def _running(inputs: np.ndarray, table: np.ndarray) -> np.ndarray:
    """(b, t): the product of the tokens up to each one, in log2(t) passes (each doubles the stretch a product covers)."""
    out, reach = inputs.copy(), 1
    while reach < out.shape[1]:
        out[:, reach:] = table[out[:, reach:], out[:, :-reach]]
        reach *= 2
    return out
