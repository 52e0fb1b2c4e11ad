"""Sampling: tokens drawn one by one from any model, for any batch; the same seed draws the same tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from blocks.errors import require
from kernels.cross_entropy import logits_of
from zoo.model.model import Model


def generate(
    model: Model,
    tokens: Tensor,
    *,
    steps: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> Iterator[Tensor]:
    """The next `steps` tokens after `tokens` (b, t) int64, each (b,) int64 on their device, as they are drawn.

    temperature: divides the logits; 0 takes the likeliest (the first of equals). top_k, top_p: see `probabilities`. seed: of the draws.
    In eval mode while it runs. Raises ConfigError for numbers that mean nothing, before anything is read.
    """
    require(steps >= 1, "steps", steps, "must be at least 1")
    require(temperature >= 0, "temperature", temperature, "must be at least 0", "0 takes the likeliest token")
    require(top_k is None or top_k >= 1, "top_k", top_k, "must be at least 1, or null for all tokens")
    require(top_p is None or 0 < top_p <= 1, "top_p", top_p, "must lie in (0, 1], or null for all tokens")
    return _sample(model, tokens, steps, temperature, top_k, top_p, torch.Generator().manual_seed(seed))


def _sample(
    model: Model, tokens: Tensor, steps: int, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator
) -> Iterator[Tensor]:
    state, piece, training = None, tokens, model.training
    model.eval()
    try:
        for _ in range(steps):
            logits, state = _last_logits(model, piece, state)
            if temperature == 0:
                chosen = logits.argmax(-1)
            else:
                samples = torch.multinomial(probabilities(logits, temperature, top_k, top_p).cpu(), 1, generator=generator)
                chosen = samples[:, 0].to(tokens.device)
            yield chosen
            piece = chosen[:, None]
    finally:
        model.train(training)


@torch.no_grad()
def _last_logits(model: Model, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
    """(b, vocab): only the last token meets the head."""
    hidden, state = model.hidden(tokens, state)
    return logits_of(hidden[:, -1], model.head_weight, model.config.logit_softcap), state


def probabilities(logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """logits (b, vocab) -> (b, vocab), what the next token is drawn from: first the temperature, then only the top_k likeliest, of these
    the fewest that hold top_p of the probability (nucleus sampling, arXiv:1904.09751). Equals of the last one kept are kept by top_k."""
    scores = logits / temperature
    if top_k is not None and top_k < scores.shape[-1]:
        scores = scores.masked_fill(scores < scores.topk(top_k).values[:, -1:], -torch.inf)
    if top_p is not None and top_p < 1:
        ordered, index = scores.softmax(-1).sort(descending=True, stable=True)
        beyond = ordered.cumsum(-1) - ordered >= top_p  # the tokens before it are enough
        scores = scores.masked_fill(beyond.scatter(1, index, beyond), -torch.inf)
    return scores.softmax(-1)
