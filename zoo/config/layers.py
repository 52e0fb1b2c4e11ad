"""The residual sub-layers of a model, one by one, with the blocks that each runs."""

from __future__ import annotations

from collections import Counter

from blocks.base import Config
from zoo.config.model import ModelConfig


def norm_places(config: ModelConfig) -> list[str]:
    """Of each sub-layer."""
    named = config.named
    return [named[names[0]].norm_place for names in config.layers]


def block_uses(config: ModelConfig) -> list[tuple[int, ...]]:
    """Of each block of each sub-layer, which use of its weights this is, from 0."""
    named, seen, rows = config.named, Counter[str](), []
    for names in config.layers:
        rows.append(tuple(seen[name] for name in names))
        seen.update(name for name in names if named[name].share)
    return rows


def block_key(index: int, name: str, share: bool) -> str:
    """The name of a block's weights in Stack.blocks."""
    return name if share else f"{index:02d}_{name}"


def block_configs(config: ModelConfig) -> list[tuple[tuple[str, Config, bool], ...]]:
    """For each sub-layer: (name, config, whether its weights are counted here) of each branch; shared weights count once."""
    seen: set[str] = set()
    rows = []
    named = config.named
    for names in config.layers:
        rows.append(tuple((n, named[n].config, n not in seen) for n in names))
        seen |= {n for n in names if named[n].share}
    return rows
