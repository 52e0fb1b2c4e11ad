"""Translates transformers' inputs (attention mask, position ids, embeddings) into a model's: padding, documents, embeddings."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from blocks.errors import ConfigError, require
from zoo.config.model import ModelConfig
from zoo.hf.cache import ZooCache


class Piece(NamedTuple):
    """The next t tokens of b rows, in zoo.Model's arguments."""

    tokens: Tensor  # (b, t) int64; 0 where only embeddings are given
    embeddings: Tensor | None  # (b, t, d)
    padding: Tensor | None  # (b, t) bool
    documents: Tensor | None  # (b, t) int64
    real: Tensor  # (b,) int64: tokens that are no padding


def piece_of(
    config: ModelConfig,
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
    cache: ZooCache | None,
) -> Piece:
    """Raises ConfigError for what the model can't compute."""
    require((input_ids is None) != (inputs_embeds is None), "input_ids", None, "either they or inputs_embeds are needed, not both")
    tokens = _stand_in(config, inputs_embeds) if inputs_embeds is not None else input_ids
    assert tokens is not None
    b, t = tokens.shape
    padding = None if attention_mask is None else _padding(attention_mask, b, t)
    real = torch.ones_like(tokens, dtype=torch.bool) if padding is None else ~padding
    before = None if cache is None else cache.lengths
    if before is None:
        before = torch.zeros(b, dtype=torch.int64, device=tokens.device)
    require(
        len(before) == b, "past_key_values", len(before), f"has so many rows, and the batch {b}", "past_key_values.batch_repeat_interleave"
    )
    documents = None if position_ids is None else _documents(position_ids, real, before)
    return Piece(tokens, inputs_embeds, padding, documents, real.sum(1))


def _stand_in(config: ModelConfig, inputs_embeds: Tensor) -> Tensor:
    """Ids for where only embeddings are known: no block may read them."""
    for name, block in config.named.items():
        require(not block.config.needs_tokens, "inputs_embeds", None, f"block {name} ({block.type}) reads token ids", "give input_ids")
    return torch.zeros(inputs_embeds.shape[:2], dtype=torch.int64, device=inputs_embeds.device)


def _padding(mask: Tensor, b: int, t: int) -> Tensor:
    """(b, t) bool, of a mask that may begin with what was read before."""
    if mask.ndim != 2 or mask.shape[0] != b or mask.shape[1] < t:
        rule = f"must be (batch, length) with at least the {t} tokens of the {b} rows; 1 = a token, 0 = padding"
        raise ConfigError("attention_mask", list(mask.shape), rule)
    return mask[:, -t:] == 0


def _documents(position_ids: Tensor, real: Tensor, before: Tensor) -> Tensor | None:
    """None where the positions are those that the model counts by itself; ids of documents where they begin at 0 again and again in rows
    that begin with them (packed texts). Positions of padding mean nothing. Raises ConfigError for any others."""
    index = real.cumsum(1) - 1
    given = position_ids[:, -real.shape[1] :].expand(real.shape)
    if bool(((given == before[:, None] + index) | ~real).all()):
        return None
    first = (given == 0) & real
    begun = torch.where(first, index, -1).cummax(1).values
    packed = bool((((given == index - begun) & (begun >= 0)) | ~real).all()) and not bool(before.any())
    rule = "must count the tokens of the attention_mask from 0, or of each of the texts packed in a row; a model has no other positions"
    require(packed, "position_ids", None, rule, "leave them out, and give an attention_mask of all that was read")
    return first.cumsum(1)
