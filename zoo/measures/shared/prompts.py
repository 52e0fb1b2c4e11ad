"""What a measure streams: documents as they are, documents joined to any length, or text without content.

    documents   the first `length` tokens of each document
    joined      documents end to end, each with its separator, the state carried across: every next document goes to the text that
                is shortest so far, so that no two texts share one
    repeated    the middle `block` tokens of each document, over and over
    newlines    one text of the same token: nothing to remember at all. There is only one such text, its numbers have no sampling
                error: n = 1 and an interval of no width

A state that collapses on newlines collapses on nothing that it read (Stuffed Mamba, arXiv:2410.07145).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from blocks.errors import ConfigError, one_of, require
from zoo.config.model import ModelConfig
from zoo.measures.shared.base import Documents, MeasureConfig, Reads, long_documents
from zoo.measures.shared.statistics import Interval, mean_interval

PROMPTS = ("documents", "joined", "repeated", "newlines")


@dataclass(frozen=True, kw_only=True)
class PromptConfig(MeasureConfig):
    """The fields of a measure that streams texts of `needed` tokens."""

    prompt: str = "documents"  # see the module
    documents: int = 8  # texts: the first so many documents, at least 2
    block: int = 64  # tokens of `repeated`
    newline: int = 10  # token id of `newlines`: a line feed's byte

    def __post_init__(self) -> None:
        one_of("prompt", self.prompt, PROMPTS)
        require(self.documents >= 2, "documents", self.documents, "must be at least 2")
        require(self.block >= 1, "block", self.block, "must be positive")
        require(self.newline >= 0, "newline", self.newline, "must be a token id")

    @property
    def needed(self) -> int:
        """Tokens of a text."""
        raise NotImplementedError

    @property
    def reads(self) -> Reads | None:
        match self.prompt:
            case "newlines":
                return None
            case "joined":
                return Reads(2, 1, self.documents * self.needed)
            case "repeated":
                return Reads(2, self.block)
        return Reads(2, self.needed)

    def check(self, model: ModelConfig) -> None:
        if self.prompt == "newlines":
            require(self.newline < model.vocab_size, "newline", self.newline, f"the model has {model.vocab_size} token ids")

    @property
    def where(self) -> dict[str, Any]:
        """The beginning of every row's condition: nothing for documents as they are."""
        return {} if self.prompt == "documents" else {"prompt": self.prompt}

    @property
    def interval(self) -> Callable[[ArrayLike], Interval]:
        """The mean over texts with its interval."""
        return _exact if self.prompt == "newlines" else mean_interval

    def texts(self, data: Documents | None) -> Tensor:
        """(texts, needed) int64. Raises ConfigError for missing, short or malformed documents."""
        match self.prompt:
            case "newlines":
                return torch.full((1, 1), self.newline).expand(1, self.needed)
            case "joined":
                return _joined(data, self.documents, self.needed)
            case "repeated":
                return _repeated(data, self.documents, self.block, self.needed)
        return long_documents(data, self.documents, self.needed)


def _exact(values: ArrayLike) -> Interval:
    (value,) = torch.as_tensor(values).double().tolist()
    return Interval(value, value, value, 1)


def _repeated(data: Documents | None, count: int, block: int, length: int) -> Tensor:
    texts = []
    for i in range(len(long_documents(data, count, block))):
        assert data is not None
        first = (len(data[i]) - block) // 2
        texts.append(data[i][first : first + block].repeat(-(-length // block))[:length])
    return torch.stack(texts).long()


def _joined(data: Documents | None, count: int, length: int) -> Tensor:
    if data is None:
        raise ConfigError("data", None, "this measure reads documents", "give a list of (length,) int64 tensors")
    texts: list[list[Tensor]] = [[] for _ in range(count)]
    lengths = [0] * count
    for i, document in enumerate(data):
        require(document.ndim == 1, f"data.{i}", list(document.shape), "a document is one row of token ids")
        shortest = min(range(count), key=lengths.__getitem__)
        if lengths[shortest] >= length:
            break
        texts[shortest].append(document)
        lengths[shortest] += len(document)
    if min(lengths) < length:
        total = sum(len(document) for document in data)
        rule = f"{total} tokens of text do not make so many texts of {length}: the shortest has {min(lengths)}"
        raise ConfigError("documents", count, rule, "fewer texts, shorter ones, or prompt: repeated")
    return torch.stack([torch.cat(parts)[:length] for parts in texts]).long()
