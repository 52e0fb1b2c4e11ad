"""Induction: find where what was just read stood before, and say what followed it there.

`special` (Mamba, arXiv:2312.00752): random ids 1 .. V-1; id 0 stands once at a random place and once more at the very end; the
answer is the id that followed it. Mamba trains at 256 tokens and tests from 64 to 2^20.

`repeated` (Olsson et al., arXiv:2209.11895): a random sequence of `span` tokens at a chosen depth of filler, then, at the end,
the same sequence again; from its second token on, each token of the repetition is asked for. The span's ids are all different
and the filler has none of them, so that the token just read tells where to look. With a span of (length + 1) / 2 there is no
filler: the plain sequence said twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blocks.errors import one_of, require
from zoo.tasks.shared.base import IGNORE, Batch, batch, check_range, distinct, fill, integers, placed, uniforms

SUMMARY = "induction: what followed a special token, or a whole repeated sequence, when it stood there before"
PATTERNS = ("special", "repeated")
TRAIN_LENGTH = 256  # Mamba's
TEST_LENGTHS = tuple(2**i for i in range(6, 21))


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of one condition."""

    vocab_size: int = 16  # ids; with pattern special, id 0 is the special one
    length: int = 256  # tokens that the model reads
    pattern: str = "special"  # special (one token, asked for at the end) | repeated (a sequence, then the same again)
    span: int | None = None  # tokens of the repeated sequence; null with pattern special
    depth: float | None = None  # share of the free tokens before the first occurrence, 0 to 1; null: drawn for each example

    def __post_init__(self) -> None:
        one_of("pattern", self.pattern, PATTERNS)
        require(self.vocab_size >= 3, "vocab_size", self.vocab_size, "must be 3 or more: the special token and two others")
        require(self.depth is None or 0 <= self.depth <= 1, "depth", self.depth, "is a share of the free tokens, 0 to 1")
        if self.pattern == "special":
            require(self.span is None, "span", self.span, "is of pattern repeated only", "pattern: repeated, or leave span out")
            require(self.length >= 3, "length", self.length, "must be 3 or more: the special token, what follows it, the special token")
        else:
            self._check_span()

    def _check_span(self) -> None:
        span = self.span or 0
        require(span >= 2, "span", self.span, "must be 2 or more with pattern repeated", "for example span: 8")
        require(self.length >= 2 * span - 1, "length", self.length, f"twice a span of {span} needs {2 * span - 1} tokens read")
        most = self.vocab_size - (self.free > 0)
        rule = f"needs {span} different ids" + (" and at least one for the filler" if self.free else "")
        require(span <= most, "span", span, f"{rule}, vocab_size is {self.vocab_size}", f"a span of at most {most}")

    @property
    def free(self) -> int:
        """Places of the first occurrence, less one: the filler tokens before or after it that it can be shifted over."""
        return self.length - 3 if self.span is None else self.length + 1 - 2 * self.span


def chance(config: Config) -> float:
    """A guess among the ordinary ids; with pattern repeated among the tokens of the span that are asked for."""
    return 1 / (config.vocab_size - 1) if config.span is None else 1 / (config.span - 1)


def generate(config: Config, seed: int, start: int, count: int) -> Batch:
    """Examples start .. start+count-1.

    info (b,): length, depth (share of the free tokens really before the first occurrence), distance (tokens back from the second
    occurrence to the first), span (1 for the special token).
    """
    check_range(seed, start, count)
    stream = ("induction", seed, config.vocab_size, config.length, config.pattern, config.span)
    u = uniforms((*stream, "place"), start, count, 1)[:, 0]
    at = integers(u, config.free + 1) if config.depth is None else np.full(count, int(config.depth * config.free + 0.5))
    noise = uniforms((*stream, "filler"), start, count, config.length + 1)
    if config.span is None:
        inputs, labels = _special(config, at, noise[:, : config.length])
        last = config.length - 1
    else:
        chosen = distinct(uniforms((*stream, "span"), start, count, config.span), config.vocab_size)
        inputs, labels = _repeated(config, at, noise, chosen)
        last = config.length + 1 - config.span
    info = {"length": np.full(count, config.length), "depth": at / max(config.free, 1), "distance": last - at}
    return batch(inputs, labels, info | {"span": np.full(count, config.span or 1)})


def _special(config: Config, at: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inputs = 1 + integers(u, config.vocab_size - 1)
    rows, last = np.arange(len(at)), config.length - 1
    inputs[rows, at] = inputs[:, last] = 0
    return inputs, placed(np.full((len(at), 1), last), inputs[rows, at + 1][:, None], config.length, IGNORE)


def _repeated(config: Config, at: np.ndarray, u: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    width = chosen.shape[1]
    second = config.length + 1 - width
    whole = fill("noise", u, config.vocab_size, chosen) if config.free else np.empty(u.shape, dtype=np.int64)
    np.put_along_axis(whole, at[:, None] + np.arange(width), chosen, 1)
    whole[:, second:] = chosen
    labels = np.full((len(at), config.length), IGNORE, dtype=np.int64)
    labels[:, second:] = chosen[:, 1:]
    return whole[:, :-1].copy(), labels
