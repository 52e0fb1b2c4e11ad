"""The residual stack: all sub-layers of a model, one after another (see zoo.model.sublayer).

x <- x + mix_i(block_i(norm(x)))             norm_place: pre
x <- x + norm(mix_i(block_i(x)))             post (OLMo 2, arXiv:2501.00656)
x <- x + norm'(mix_i(block_i(norm(x))))      sandwich (Gemma 2, arXiv:2408.00118)
x <- norm(x) + mix_i(block_i(norm(x)))       stream (MiniMax-01, arXiv:2501.08313)
x <- x + mix_i(block_i(x))                   none

Of a sub-layer with `into: next` the right-hand summand y leaves the stream alone: the next sub-layer reads x + y in place of x, before its
norm, and is added to x (Zamba, arXiv:2405.16712).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from blocks.context import Context
from zoo.config.layers import block_uses
from zoo.config.model import ModelConfig
from zoo.model.sublayer import Modules, States, Sublayer

LayerStates = tuple[States, ...]  # of a stack, one a sub-layer


class Stack(nn.Module):
    """All sub-layers of a model. Their modules lie in four dicts (see Modules), so that weights that several sub-layers share are stored
    once and under one name."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.blocks, self.norms, self.post_norms, self.branch_norms = (nn.ModuleDict() for _ in Modules._fields)
        self.stream = nn.Identity()  # what each sub-layer leaves passes it, so that a hook can read the stream
        self.dropout = config.dropout
        modules = Modules(self.blocks, self.norms, self.post_norms, self.branch_norms)
        self.sublayers = [Sublayer(modules, config, index, uses) for index, uses in enumerate(block_uses(config))]
        layers = _layer_numbers(self.sublayers)
        for sublayer, layer in zip(self.sublayers, layers, strict=True):
            sublayer.add_modules(config, layer, n_layers=max(layers) + 1)

    @property
    def layers(self) -> list[tuple[str, ...]]:
        """Of each sub-layer, the keys of the blocks that it runs."""
        return [tuple(branch.key for branch in sublayer.branches) for sublayer in self.sublayers]

    def forward(self, x: Tensor, states: LayerStates | None, ctx: Context) -> tuple[Tensor, LayerStates]:
        """x (b, t, d) -> (b, t, d) and every sub-layer's states; states None = start of text."""
        after: list[States] = []
        ctx, extra = replace(ctx, embedded=x), None
        dropout = self.dropout if self.training else 0.0
        for index, sublayer in enumerate(self.sublayers):
            x, extra, now = sublayer(x, extra, None if states is None else states[index], ctx, dropout=dropout)
            x = self.stream(x)
            after.append(now)
        return x, tuple(after)


def _layer_numbers(sublayers: Sequence[Sublayer]) -> list[int]:
    """Of each sub-layer, how many with a mixer come before it; a channel mixer has the number of the mixer before it."""
    numbers, mixers = [], 0
    for sublayer in sublayers:
        numbers.append(mixers if sublayer.is_mixer else max(mixers - 1, 0))
        mixers += sublayer.is_mixer
    return numbers
