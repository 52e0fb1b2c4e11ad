"""Which blocks of a model have a state that grows with the text."""

from __future__ import annotations

from zoo.config.model import ModelConfig

LONG = 1 << 14  # a state that still grows at this length grows with the text


def growing(model: ModelConfig) -> dict[tuple[int, int], str]:
    """(layer, branch) -> block name, of the blocks whose state grows with the text for ever."""
    named = model.named
    size = {n: [b.config.cost(model.d_model, length).state_bytes for length in (LONG, 2 * LONG)] for n, b in named.items()}
    return {(i, j): n for i, names in enumerate(model.layers) for j, n in enumerate(names) if size[n][0] < size[n][1]}
