"""Initial weights of a model taken from another one that shares some of its blocks: exchanged blocks are new, all else is taken over.

Tensors go by name, and a block's names begin with its place and its name in the pattern (00_A, 01_F): exchange sub-layer 2 of A F A F
for G, and 02_G is new, 02_A is left behind, 00_A, 01_F and 03_F are taken over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from blocks.errors import ConfigError, require
from zoo.config.layers import block_key
from zoo.config.model import ModelConfig
from zoo.model.model import Model
from zoo.weights.safetensors_io import weights_of

BLOCKS = "stack.blocks."


class Transfer(NamedTuple):
    """Which weights of a model are taken over, which are new, and which of the other model are not used."""

    taken: tuple[str, ...]  # names of tensors
    fresh: tuple[str, ...]  # blocks with new weights, by their keys in the stack
    left: tuple[str, ...]  # blocks whose weights are not used

    def __str__(self) -> str:
        return f"{len(self.taken)} tensors taken over; new: {', '.join(self.fresh) or 'none'}; left: {', '.join(self.left) or 'none'}"


def plan_transfer(config: ModelConfig, tensors: Mapping[str, Tensor], place: str, fresh: Sequence[str] | None = None) -> Transfer:
    """What a model takes over from `tensors` (place: where they are from). Only their names and shapes are looked at.

    fresh: names of blocks whose weights are to be new; None: those of which nothing is there. Raises ConfigError listing what is
    missing, of another shape or left over besides.
    """
    for name in fresh or ():
        require(name in config.blocks, "fresh", name, "is no block of the model", f"Blocks: {', '.join(config.blocks)}")
    with torch.device("meta"):
        own = weights_of(Model(config))
    given, wanted_blocks = _blocks(tensors), _blocks(own)
    new = {key for key in wanted_blocks if key not in given} if fresh is None else _keys(config, fresh)
    left = given - wanted_blocks
    wanted = [name for name in own if _block(name) not in new]
    offered = [name for name in tensors if _block(name) not in new | left]
    shapes = [n for n in wanted if n in tensors and tensors[n].shape != own[n].shape]
    _complain(
        place,
        ("lacks", [name for name in wanted if name not in tensors]),
        ("holds what the model has no place for:", [name for name in offered if name not in own]),
        ("differs in", [f"{n} ({list(tensors[n].shape)}, the model's is {list(own[n].shape)})" for n in shapes]),
    )
    return Transfer(tuple(wanted), tuple(sorted(new)), tuple(sorted(left | (new & given))))


def transfer(model: Model, tensors: Mapping[str, Tensor], plan: Transfer) -> None:
    """Copy what is taken over into the model."""
    own = weights_of(model)
    with torch.no_grad():
        for name in plan.taken:
            own[name].copy_(tensors[name])


def _blocks(tensors: Mapping[str, Tensor]) -> set[str]:
    return {key for name in tensors if (key := _block(name)) is not None}


def _block(name: str) -> str | None:
    """The key of the block that a tensor belongs to, None if it belongs to no block."""
    return name.removeprefix(BLOCKS).split(".")[0] if name.startswith(BLOCKS) else None


def _keys(config: ModelConfig, names: Sequence[str]) -> set[str]:
    """The keys in the stack of all occurrences of these blocks."""
    named = config.named
    return {block_key(i, name, named[name].share) for i, layer in enumerate(config.layers) for name in layer if name in names}


def _complain(place: str, *faults: tuple[str, list[str]]) -> None:
    texts = [f"{what} {', '.join(names)}" for what, names in faults if names]
    if texts:
        raise ConfigError(place, None, "; ".join(texts), "fresh names the blocks whose weights are to be new")
