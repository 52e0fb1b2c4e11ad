"""Selective copying: data tokens at random places among noise; say them again, in order, without the noise.

Layout (Mamba, arXiv:2312.00752; MAD, arXiv:2403.17844): `data` random ids 2 .. V-1 at random places among noise (id 0), the copy
token (id 1), then the answer. Every set of places is equally likely, the last one before the copy token included.

    answer: blank   as published: `data` noise tokens follow, and the label of the i-th, at that same position, is the i-th datum.
                    The answers are not shown, so that the model must know by itself how many it has given.
    answer: shown   teacher-forced: the data follow and each is the label of the position before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blocks.errors import one_of, require
from zoo.tasks.shared.base import IGNORE, Batch, batch, check_range, integers, placed, subset, uniforms

SUMMARY = "selective copying: data tokens at random places among noise, then all of them in order"
ANSWERS = ("blank", "shown")
NOISE, COPY, FIRST = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of one condition. Mamba's: vocab_size 16, length 4096, data 16."""

    vocab_size: int = 16  # noise, the copy token, and the ids of the data
    length: int = 256  # tokens that the model reads, the answer's part included
    data: int = 16  # tokens to say again
    answer: str = "blank"  # blank (noise where the answers belong) | shown (the data again, teacher-forced)

    def __post_init__(self) -> None:
        require(self.vocab_size >= 4, "vocab_size", self.vocab_size, "must be 4 or more: noise, the copy token and two data ids")
        require(self.data >= 1, "data", self.data, "must be positive")
        one_of("answer", self.answer, ANSWERS)
        least = self.length + self.data - self.room
        most = (self.length - self.data + self.room) // 2
        require(self.room >= self.data, "length", self.length, f"{self.data} data need {least} tokens", f"or data of at most {most}")

    @property
    def room(self) -> int:
        """Tokens before the copy token: data and noise."""
        return self.length - 1 - (self.data if self.answer == "blank" else self.data - 1)


def chance(config: Config) -> float:
    """A guess among the data ids."""
    return 1 / (config.vocab_size - FIRST)


def generate(config: Config, seed: int, start: int, count: int) -> Batch:
    """Examples start .. start+count-1.

    info: length, data (b,); rank (b, t), which datum is asked for, from 0, -1 where nothing is; distance (b, t), tokens from
    there back to the datum, 0 where nothing is asked.
    """
    check_range(seed, start, count)
    m, room = config.data, config.room
    draws = uniforms(("selective_copying", seed, config.vocab_size, config.length, m, room), start, count, 2 * m)
    data = FIRST + integers(draws[:, :m], config.vocab_size - FIRST)
    where = subset(draws[:, m:], room)
    inputs = placed(where, data, config.length, NOISE)
    inputs[:, room] = COPY
    shown = config.answer == "shown"
    if shown:
        inputs[:, room + 1 :] = data[:, :-1]
    asked = np.tile(room + (0 if shown else 1) + np.arange(m), (count, 1))
    info = {"length": np.full(count, config.length), "data": np.full(count, m)}
    info |= {"rank": placed(asked, np.tile(np.arange(m), (count, 1)), config.length, -1)}
    info |= {"distance": placed(asked, asked - where, config.length, 0)}
    return batch(inputs, placed(asked, data, config.length, IGNORE), info)
