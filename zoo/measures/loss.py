"""The loss on held-out documents, each read whole with the state carried, or in windows that begin anew.

Every token of a document but its first is predicted once. The mean is over tokens; the interval is the bootstrap over documents.

    condition  window=256    or    window=document
    metrics    nll (nats a token); bits_per_token; bits_per_byte (if bytes_per_token is given)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from blocks.errors import require
from zoo.measures.shared.base import Documents, Headline, MeasureConfig, Progress, Reads, Result, Row, every_key, row, some_documents
from zoo.measures.shared.statistics import Interval, ratio_interval
from zoo.measures.shared.streaming import CALL_TOKENS, Counter, evaluating, shape_of_call, spans, stream
from zoo.model.model import IGNORE, Model

SUMMARY = "loss on held-out documents, in nats and bits"


def _title(condition: Mapping[str, Any]) -> str:
    return "whole documents" if condition["window"] == "document" else every_key(condition)


METRICS = ("nll", "bits_per_token", "bits_per_byte")
HEADLINE = (Headline("bits_per_byte", "bits/byte", title=_title), Headline("nll", "nats/token", title=_title, unless="bits_per_byte"))
RESUMABLE = False


@dataclass(frozen=True, kw_only=True)
class Config(MeasureConfig):
    """Sizes of the measure."""

    window: int | None = None  # tokens read from an empty state; null: whole documents, streamed
    documents: int | None = None  # the first so many; null: all
    bytes_per_token: float | None = None  # of the tokenizer on these documents, 1 for bytes; null: no bits_per_byte
    call_tokens: int = CALL_TOKENS  # tokens that one forward call reads

    def __post_init__(self) -> None:
        require(self.window is None or self.window >= 1, "window", self.window, "must be positive, or null for whole documents")
        require(self.documents is None or self.documents >= 1, "documents", self.documents, "must be positive, or null for all")
        rate = self.bytes_per_token
        require(rate is None or rate > 0, "bytes_per_token", rate, "must be positive")
        require(self.call_tokens >= 1, "call_tokens", self.call_tokens, "must be positive")

    @property
    def reads(self) -> Reads:
        return Reads(1, 2)


def run(model: Model, config: Config, seed: int, *, data: Documents | None = None, progress: Progress | None = None) -> Result:
    """See the module. `data`: documents of 2 tokens or more."""
    chosen = some_documents(data, config.documents)
    texts = [(i, text) for i, document in enumerate(chosen) for text in _texts(document, config.window)]
    texts.sort(key=lambda entry: len(entry[1]))  # neighbours of like length waste little padding
    sums = torch.zeros(len(chosen), dtype=torch.float64)
    counter = Counter(sum(len(text) - 1 for _, text in texts), progress)
    with evaluating(model):
        while texts:
            rows, piece = shape_of_call(len(texts), len(texts[-1][1]), config.call_tokens)
            batch, texts = texts[-rows:], texts[:-rows]
            owners = torch.tensor([i for i, _ in batch])
            sums.index_add_(0, owners, _nll([text for _, text in batch], model, piece))
            counter.add(sum(len(text) - 1 for _, text in batch))
    counts = [len(document) - 1 for document in chosen]
    return Result(tuple(_rows(config, ratio_interval(sums.numpy(), counts, seed))))


def _texts(document: Tensor, window: int | None) -> list[Tensor]:
    """The texts that are read on their own: each begins with the last token of the one before, and predicts what follows it."""
    size = window or len(document)
    return [document[a : a + size + 1] for a in range(0, len(document) - 1, size)]


def _nll(texts: list[Tensor], model: Model, piece: int) -> Tensor:
    """(b,) summed nats of each text after its first token. Padding is at the right, where no scored token sees it."""
    tokens = pad_sequence([text[:-1] for text in texts], batch_first=True)
    labels = pad_sequence([text[1:] for text in texts], batch_first=True, padding_value=IGNORE)
    return sum((r.nll.sum(1) for r in stream(model, tokens, labels, spans(tokens.shape[1], piece))), torch.zeros(len(texts)).double())


def _rows(config: Config, nats: Interval) -> list[Row]:
    scales = {"nll": 1.0, "bits_per_token": 1 / math.log(2)}
    if config.bytes_per_token is not None:
        scales["bits_per_byte"] = 1 / (math.log(2) * config.bytes_per_token)
    where = {"window": config.window or "document"}
    return [row(where, metric, Interval(nats.value * x, nats.low * x, nats.high * x, nats.n)) for metric, x in scales.items()]
