"""One residual sub-layer: a norm, one or more blocks side by side, a norm of what they return, and the stream that it is added to.

    n = norm(x + extra)                                                    extra: what the sub-layer before gave to this one alone
    y = residual_scale post_norm(mix_i(output_scale_i block_i(input_scale_i n)))      with dropout in training
    x <- skip_scale x + y                                                  norm_place: pre, post, sandwich or none
    x <- skip_scale n + y                                                  norm_place: stream
    x <- x, extra <- y                                                     into: next

mix is the sum of the blocks' outputs, or the mean of their RMS norms (parallel: mean_norm).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks import parts
from blocks.context import Context
from zoo.config.layers import block_key
from zoo.config.model import ModelConfig, Named

States = tuple[Any, ...]  # of a sub-layer, one a branch


class Modules(NamedTuple):
    """The modules of all sub-layers, by the names that checkpoints have for them. A module is wrapped or exchanged here."""

    blocks: nn.ModuleDict  # by the block's key: 00_M, or M if all its occurrences share their weights
    norms: nn.ModuleDict  # by the sub-layer's index: before the blocks
    post_norms: nn.ModuleDict  # by the sub-layer's index: of what the blocks return
    branch_norms: nn.ModuleDict  # by the sub-layer's index: one norm a branch (parallel: mean_norm)


class Branch(NamedTuple):
    """One block of a sub-layer."""

    key: str  # in Modules.blocks
    use: int  # which use of its weights this is, from 0
    input_scale: float  # factor of what it reads
    output_scale: float  # factor of what it returns


class Sublayer:
    """See the file's docstring. It holds no weights: it finds its modules in `modules`."""

    def __init__(self, modules: Modules, config: ModelConfig, index: int, uses: Sequence[int]) -> None:
        """uses: of each block, see Branch.use."""
        names = config.layers[index]
        blocks = [config.named[name] for name in names]
        self.modules, self.index = modules, str(index)
        self.branches = [
            Branch(block_key(index, name, block.share), use, block.input_scale, block.output_scale)
            for name, block, use in zip(names, blocks, uses, strict=True)
        ]
        self.is_mixer = any(block.config.kind == "mixer" for block in blocks)
        self.residual_scale = config.residual_scale
        shared = blocks[0]  # norm_place, skip_scale and into are the same for all blocks of a sub-layer
        self.norm_place, self.skip_scale, self.feeds_next = shared.norm_place, shared.skip_scale, shared.into == "next"
        self.mean_of_norms = config.parallel == "mean_norm" and len(names) > 1

    def add_modules(self, config: ModelConfig, layer: int, n_layers: int) -> None:
        """Build the modules that are not there yet. layer, n_layers: see blocks.base.Config.build."""
        for branch, name in zip(self.branches, config.layers[int(self.index)], strict=True):
            if branch.key not in self.modules.blocks:
                block: Named = config.named[name]
                self.modules.blocks[branch.key] = block.config.build(config.d_model, layer, n_layers)
        if self.norm_place in ("pre", "sandwich", "stream"):
            self.modules.norms[self.index] = make_norm(config)
        if self.norm_place in ("post", "sandwich"):
            self.modules.post_norms[self.index] = make_norm(config)
        if self.mean_of_norms:
            norms = (parts.RMSNorm(config.d_model, eps=config.norm_eps) for _ in self.branches)
            self.modules.branch_norms[self.index] = nn.ModuleList(norms)

    def __call__(
        self, x: Tensor, extra: Tensor | None, states: States | None, ctx: Context, *, dropout: float = 0.0
    ) -> tuple[Tensor, Tensor | None, States]:
        """The stream x (b, t, d), what the next sub-layer alone reads besides, and the branches' states; states None = start of text."""
        normed = self._norm(self.modules.norms, x if extra is None else x + extra)
        states = (None,) * len(self.branches) if states is None else states
        outputs, states = zip(*(self._run(branch, normed, s, ctx) for branch, s in zip(self.branches, states, strict=True)), strict=True)
        y = self._norm(self.modules.post_norms, self._mix(outputs))
        y = y if self.residual_scale == 1 else y * self.residual_scale
        y = F.dropout(y, dropout) if dropout else y
        if self.feeds_next:
            return x, y, states
        skip = normed if self.norm_place == "stream" else x
        return (skip if self.skip_scale == 1 else skip * self.skip_scale) + y, None, states

    def _norm(self, norms: nn.ModuleDict, x: Tensor) -> Tensor:
        return norms[self.index](x) if self.index in norms else x

    def _run(self, branch: Branch, x: Tensor, state: Any, ctx: Context) -> tuple[Tensor, Any]:
        ctx = ctx if branch.use == ctx.use else replace(ctx, use=branch.use)
        y, state = self.modules.blocks[branch.key](x if branch.input_scale == 1 else x * branch.input_scale, state, ctx)
        return (y if branch.output_scale == 1 else y * branch.output_scale), state

    def _mix(self, outputs: Sequence[Tensor]) -> Tensor:
        if self.mean_of_norms:
            norms: Any = self.modules.branch_norms[self.index]
            return torch.stack([norm(y) for norm, y in zip(norms, outputs, strict=True)]).mean(0)
        return torch.stack(list(outputs)).sum(0) if len(outputs) > 1 else outputs[0]


def make_norm(config: ModelConfig) -> nn.Module:
    """A norm of the residual stream, as at every sub-layer and before the head."""
    return parts.make_norm(config.norm, config.d_model, config.norm_eps)
