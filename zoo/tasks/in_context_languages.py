"""In-context language learning: strings of one random regular language; say which symbols may come next.

RegBench (Akyürek et al., arXiv:2401.12973): for each example a random automaton is drawn: `nodes` states, an alphabet of some of the
`letters`, and for each state `degree` outgoing edges with different letters to different other states. A string is a walk from
the start state over edges that are all equally likely, of a length drawn beforehand; it may end in any state.

    0 string 0 string 0 ...        id 0 is the delimiter, 1 .. letters the symbols; cut at `length`

Labels stand wherever a symbol, not a delimiter, is next. They are drawn, not determined: score a prediction by whether it is legal,
and a model by the total variation distance of its next-symbol law (the delimiter left out) to `distributions`.
States that can't be told apart need no merging: they allow the same symbols with the same chances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from blocks.errors import require
from zoo.tasks.shared.base import IGNORE, Batch, batch, check_range, distinct, integers, uniforms

SUMMARY = "in-context language learning: strings of one random automaton; predict legal next symbols"
DELIMITER = 0


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of one condition. Ranges are the least and the most, all between equally likely."""

    vocab_size: int = 20  # the delimiter and the letters, at least
    length: int = 512  # tokens that the model reads
    letters: int = 18  # symbols that alphabets are drawn from
    alphabet: tuple[int, int] = (4, 18)  # letters of one language
    nodes: tuple[int, int] = (4, 12)  # states of its automaton
    degree: tuple[int, int] = (1, 3)  # edges that leave a state
    string: tuple[int, int] = (1, 50)  # symbols of a string

    def __post_init__(self) -> None:
        for name, least in (("alphabet", 1), ("nodes", 2), ("degree", 1), ("string", 1)):
            low, high = getattr(self, name)
            require(least <= low <= high, name, (low, high), f"is the least and the most, {least} or more", f"for example [{least}, 8]")
        require(self.letters >= self.alphabet[1], "letters", self.letters, f"must be {self.alphabet[1]} or more: the largest alphabet")
        require(self.vocab_size > self.letters, "vocab_size", self.vocab_size, f"must be {self.letters + 1} or more: delimiter, letters")
        most = min(self.alphabet[0], self.nodes[0] - 1)
        rule = "a state's edges have different letters and lead to different other states"
        require(self.degree[1] <= most, "degree", self.degree, rule, f"at most {most}, or larger alphabet and nodes")
        require(self.length >= 2, "length", self.length, "must be 2 or more")


class Language(NamedTuple):
    """The automata of some examples. b examples, n states, d edges; state 0 is the start."""

    nodes: np.ndarray  # (b,) states
    letters: np.ndarray  # (b,) size of the alphabet
    degree: np.ndarray  # (b, n) edges that leave a state
    symbols: np.ndarray  # (b, n, d) the letter of each edge, 1 .. letters
    targets: np.ndarray  # (b, n, d) where it leads


class Walk(NamedTuple):
    """What was written of each language. w = length + 1 positions."""

    tokens: np.ndarray  # (b, w)
    states: np.ndarray  # (b, w) the state that the symbol here was drawn from, -1 at delimiters
    strings: np.ndarray  # (b, w) the number of the string, from 0


def chance(config: Config) -> float:
    """A guess among all letters."""
    return 1 / config.letters


def generate(config: Config, seed: int, start: int, count: int) -> Batch:
    """Examples start .. start+count-1.

    info: length, nodes, alphabet (b,); choices (b, t), how many symbols are legal next, 0 where nothing is scored (1 / choices is
    the best possible rate of exact matches); string (b, t), the number of the string, from 0.
    """
    language, walk = _drawn(config, seed, start, count)
    states = walk.states[:, 1:]
    labels = np.where(states >= 0, walk.tokens[:, 1:], IGNORE)
    choices = np.where(states >= 0, np.take_along_axis(language.degree, np.maximum(states, 0), 1), 0)
    info = {"length": np.full(count, config.length), "nodes": language.nodes, "alphabet": language.letters}
    return batch(walk.tokens[:, :-1].copy(), labels, info | {"choices": choices, "string": walk.strings[:, :-1].copy()})


def distributions(config: Config, seed: int, start: int, count: int) -> Tensor:
    """(b, t, vocab_size) float32: the true law of the next symbol after inputs[:t+1], given that it is no delimiter, for the
    examples that `generate` gives; all 0 where nothing is scored. A symbol is legal where it is positive.
    """
    language, walk = _drawn(config, seed, start, count)
    rows, at = np.nonzero(walk.states[:, 1:] >= 0)
    state = walk.states[rows, at + 1]
    degree, symbols = language.degree[rows, state], language.symbols[rows, state]
    law = np.zeros((count, config.length, config.vocab_size), dtype=np.float32)
    for edge in range(config.degree[1]):
        real = edge < degree
        law[rows[real], at[real], symbols[real, edge]] = 1 / degree[real]
    return torch.from_numpy(law)


def _drawn(config: Config, seed: int, start: int, count: int) -> tuple[Language, Walk]:
    check_range(seed, start, count)
    ranges = tuple(tuple(getattr(config, name)) for name in ("alphabet", "nodes", "degree", "string"))
    stream = ("in_context_languages", seed, config.letters, config.length, ranges)
    language = _languages(config, stream, start, count)
    return language, _walks(config, language, stream, start, count)


def _languages(config: Config, stream: tuple[object, ...], start: int, count: int) -> Language:
    n, a, d = config.nodes[1], config.alphabet[1], config.degree[1]
    u = uniforms((*stream, "language"), start, count, 2 + a + n * (1 + a + n))
    nodes, letters = _between(u[:, 0], config.nodes), _between(u[:, 1], config.alphabet)
    alphabet = 1 + distinct(u[:, 2 : 2 + a], config.letters)
    cells = u[:, 2 + a :].reshape(count, n, 1 + a + n)
    degree = _between(cells[..., 0], config.degree)
    kept = np.broadcast_to(np.arange(a) < letters[:, None, None], (count, n, a))
    chosen = np.argsort(np.where(kept, cells[..., 1 : 1 + a], 1.0), axis=-1, kind="stable")[..., :d]
    symbols = np.take_along_axis(np.broadcast_to(alphabet[:, None], (count, n, a)), chosen, -1)
    others = (np.arange(n) < nodes[:, None, None]) & ~np.eye(n, dtype=bool)
    targets = np.argsort(np.where(others, cells[..., 1 + a :], 1.0), axis=-1, kind="stable")[..., :d]
    return Language(nodes, letters, degree, symbols, targets)


def _walks(config: Config, language: Language, stream: tuple[object, ...], start: int, count: int) -> Walk:
    """All strings of all examples walk side by side, one symbol a step."""
    width = config.length + 1
    sizes = _between(uniforms((*stream, "sizes"), start, count, -(-width // (config.string[0] + 1))), config.string)
    begins = (sizes + 1).cumsum(1) - sizes - 1  # where the delimiter before each string stands
    used = int((begins < width).sum(1).max())
    sizes, begins = sizes[:, :used], begins[:, :used]
    u = uniforms((*stream, "walk"), start, count, width)
    walk = Walk(np.zeros((count, width), dtype=np.int64), np.full((count, width), -1), _numbers(begins, width))
    rows, column = np.nonzero(begins < width)
    at, left = begins[rows, column], sizes[rows, column]
    state = np.zeros_like(rows)
    while len(rows):
        at, left = at + 1, left - 1
        live = (left >= 0) & (at < width)
        rows, at, left, state = rows[live], at[live], left[live], state[live]
        edge = integers(u[rows, at], language.degree[rows, state])
        walk.tokens[rows, at], walk.states[rows, at] = language.symbols[rows, state, edge], state
        state = language.targets[rows, state, edge]
    return walk


def _numbers(begins: np.ndarray, width: int) -> np.ndarray:
    """(b, width): the number of the string that each position belongs to, its delimiter included."""
    marks = np.zeros((len(begins), width), dtype=np.int64)
    rows, column = np.nonzero(begins < width)
    marks[rows, begins[rows, column]] = 1
    return marks.cumsum(1) - 1


def _between(u: np.ndarray, ends: tuple[int, int]) -> np.ndarray:
    return ends[0] + integers(u, ends[1] - ends[0] + 1)
