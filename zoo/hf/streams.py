"""output_hidden_states: the residual stream before and behind every sub-layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from blocks.errors import require
from zoo.model.model import Model
from zoo.model.padding import leading, restore


def with_streams(
    model: Model, tokens: Tensor, state: Any, *, documents: Tensor | None, padding: Tensor | None, embeddings: Tensor | None
) -> tuple[Tensor, Any, tuple[Tensor, ...]]:
    """Model.hidden, and the streams (b, t, d): before the first sub-layer, behind each, and in place of the last one the normed hidden
    states. Raises ConfigError for a model that inserts tokens, whose stream has other places than the text."""
    plan = model.config.tokens
    rule = "the stream of a model that inserts tokens has other places than its text"
    require(not plan.kinds and plan.memory is None, "output_hidden_states", True, rule, "leave it out")
    streams: list[Tensor] = []

    def first(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        streams.append(arguments[0])

    def behind(module: nn.Module, arguments: tuple[Any, ...], x: Tensor) -> None:
        streams.append(x)

    hooks = [model.stack.register_forward_pre_hook(first), model.stack.stream.register_forward_hook(behind)]
    try:
        hidden, state = model.hidden(tokens, state, documents=documents, padding=padding, embeddings=embeddings)
    finally:
        for hook in hooks:
            hook.remove()
    order = leading(padding)
    earlier = streams[:-1] if order is None else [restore(x, order) for x in streams[:-1]]
    return hidden, state, (*earlier, hidden)
