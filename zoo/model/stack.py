"""The residual stack: sub-layers of one or more parallel blocks.

x <- x + scale mix_i(block_i(norm(x)))             norm_place: pre
x <- x + scale norm(mix_i(block_i(x)))             post (OLMo 2, arXiv:2501.00656)
x <- x + scale norm'(mix_i(block_i(norm(x))))      sandwich (Gemma 2, arXiv:2408.00118)
x <- norm(x) + scale mix_i(block_i(norm(x)))       stream (MiniMax-01, arXiv:2501.08313)
x <- x + scale mix_i(block_i(x))                   none

A block may have a norm_place of its own, and factors: output_scale block_i(input_scale norm(x)), and skip_scale of what the sub-layer is
added to. Of a sub-layer with into: next the right-hand summand y leaves the stream alone: the next sub-layer reads x + y in place of x,
before its norm, and is added to x (Zamba, arXiv:2405.16712).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks import parts
from blocks.context import Context
from zoo.config.layers import block_key, block_uses, norm_places
from zoo.config.model import ModelConfig, Named

LayerStates = tuple[tuple[Any, ...], ...]  # one tuple a sub-layer, one state a parallel branch


def make_norm(config: ModelConfig) -> nn.Module:
    """A norm of the residual stream, as at every sub-layer and before the head."""
    return parts.make_norm(config.norm, config.d_model, config.norm_eps)


def _norms(config: ModelConfig, places: tuple[str, ...]) -> nn.ModuleDict:
    """By the index of its sub-layer, a norm where that stands in one of these places."""
    return nn.ModuleDict({str(index): make_norm(config) for index, place in enumerate(norm_places(config)) if place in places})


class Stack(nn.Module):
    """All sub-layers of a model. Blocks live in `blocks` under one key each ("00_M"; a shared block under its name), so that
    shared weights are stored once; `layers` says which keys each sub-layer runs. `norms` stand before the sub-layers, `post_norms`
    behind them, by the index of a sub-layer that has one."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers: list[tuple[str, ...]] = []
        self.scales: list[tuple[tuple[float, float], ...]] = []  # of the blocks in `layers`: input_scale, output_scale
        self.blocks = nn.ModuleDict()
        self.norms, self.post_norms = _norms(config, ("pre", "sandwich", "stream")), _norms(config, ("post", "sandwich"))
        self.branch_norms = nn.ModuleDict()
        self.stream = nn.Identity()  # what each sub-layer leaves passes it, so that a hook can read the stream
        self.dropout = config.dropout
        self.parallel, self.scale = config.parallel, config.residual_scale
        named = config.named
        self.aside = [named[names[0]].into == "next" for names in config.layers]
        self.uses = block_uses(config)
        self.skips = [(named[names[0]].norm_place == "stream", named[names[0]].skip_scale) for names in config.layers]
        depth, n_layers = 0, sum(any(named[n].config.kind == "mixer" for n in names) for names in config.layers)
        for index, names in enumerate(config.layers):
            is_mixer = any(named[n].config.kind == "mixer" for n in names)
            layer = depth if is_mixer else max(depth - 1, 0)  # a channel mixer belongs to the mixer before it
            depth += is_mixer
            self.layers.append(tuple(self._add(config, named[n], n, index, layer, max(n_layers, 1)) for n in names))
            self.scales.append(tuple((named[n].input_scale, named[n].output_scale) for n in names))
            if self.parallel == "mean_norm" and len(names) > 1:
                self.branch_norms[str(index)] = nn.ModuleList(parts.RMSNorm(config.d_model, eps=config.norm_eps) for _ in names)

    def _add(self, config: ModelConfig, named: Named, name: str, index: int, layer: int, n_layers: int) -> str:
        key = block_key(index, name, named.share)
        if key not in self.blocks:
            self.blocks[key] = named.config.build(config.d_model, layer, n_layers)
        return key

    def forward(self, x: Tensor, states: LayerStates | None, ctx: Context) -> tuple[Tensor, LayerStates]:
        """x (b, t, d) -> (b, t, d) and every layer's state; states None = start of text."""
        after = []
        ctx, beside = replace(ctx, embedded=x), None
        for index, keys in enumerate(self.layers):
            normed = self._normed(self.norms, index, x if beside is None else x + beside)
            before = states[index] if states is not None else (None,) * len(keys)
            results = [self._branch(index, branch, normed, state, ctx) for branch, state in enumerate(before)]
            y = self._mix(index, [y for y, _ in results])
            y = self._normed(self.post_norms, index, y)
            y = y if self.scale == 1 else y * self.scale
            y = F.dropout(y, self.dropout) if self.dropout and self.training else y
            x, beside = (x, y) if self.aside[index] else (self._skipped(index, x, normed) + y, None)
            x = self.stream(x)
            after.append(tuple(state for _, state in results))
        return x, tuple(after)

    def _skipped(self, index: int, x: Tensor, normed: Tensor) -> Tensor:
        """What a sub-layer's output is added to."""
        from_norm, skip = self.skips[index]
        x = normed if from_norm else x
        return x if skip == 1 else x * skip

    def _normed(self, norms: nn.ModuleDict, index: int, x: Tensor) -> Tensor:
        return norms[str(index)](x) if str(index) in norms else x

    def _branch(self, index: int, branch: int, x: Tensor, state: Any, ctx: Context) -> tuple[Tensor, Any]:
        before, behind = self.scales[index][branch]
        use = self.uses[index][branch]
        ctx = ctx if use == ctx.use else replace(ctx, use=use)
        y, state = self.blocks[self.layers[index][branch]](x if before == 1 else x * before, state, ctx)
        return (y if behind == 1 else y * behind), state

    def _mix(self, index: int, outputs: list[Tensor]) -> Tensor:
        if self.parallel == "mean_norm" and len(outputs) > 1:
            norms: Any = self.branch_norms[str(index)]
            return torch.stack([norm(y) for norm, y in zip(norms, outputs, strict=True)]).mean(0)
        return torch.stack(outputs).sum(0) if len(outputs) > 1 else outputs[0]
