"""The residual stack: sub-layers of one or more parallel blocks.

x <- x + scale mix_i(block_i(norm(x)))             norm_place: pre
x <- x + scale norm(mix_i(block_i(x)))             post (OLMo 2, arXiv:2501.00656)
x <- x + scale norm'(mix_i(block_i(norm(x))))      sandwich (Gemma 2, arXiv:2408.00118)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks import parts
from blocks.base import Config, Context
from zoo.config import ModelConfig, Named

LayerStates = tuple[tuple[Any, ...], ...]  # one tuple a sub-layer, one state a parallel branch


def make_norm(config: ModelConfig) -> nn.Module:
    """A norm of the residual stream, as at every sub-layer and before the head."""
    return parts.make_norm(config.norm, config.d_model, config.norm_eps)


def _norms(config: ModelConfig, places: tuple[str, ...]) -> nn.ModuleList:
    """One norm a sub-layer if the model's norms stand in one of these places, else none."""
    return nn.ModuleList(make_norm(config) for _ in config.layers if config.norm_place in places)


class Stack(nn.Module):
    """All sub-layers of a model. Blocks live in `blocks` under one key each ("00_M"; a shared block under its name), so that
    shared weights are stored once; `layers` says which keys each sub-layer runs. `norms` stand before the sub-layers, `post_norms`
    behind them; each is empty where norm_place has none."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers: list[tuple[str, ...]] = []
        self.blocks = nn.ModuleDict()
        self.norms, self.post_norms = _norms(config, ("pre", "sandwich")), _norms(config, ("post", "sandwich"))
        self.branch_norms = nn.ModuleDict()
        self.dropout = config.dropout
        self.parallel, self.scale = config.parallel, config.residual_scale
        named = config.named
        depth, n_layers = 0, sum(any(named[n].config.kind == "mixer" for n in names) for names in config.layers)
        for index, names in enumerate(config.layers):
            is_mixer = any(named[n].config.kind == "mixer" for n in names)
            layer = depth if is_mixer else max(depth - 1, 0)  # a channel mixer belongs to the mixer before it
            depth += is_mixer
            self.layers.append(tuple(self._add(config, named[n], n, index, layer, max(n_layers, 1)) for n in names))
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
        for index, keys in enumerate(self.layers):
            normed = self.norms[index](x) if self.norms else x
            before = states[index] if states is not None else (None,) * len(keys)
            results = [self.blocks[key](normed, state, ctx) for key, state in zip(keys, before, strict=True)]
            y = self._mix(index, [y for y, _ in results])
            y = self.post_norms[index](y) if self.post_norms else y
            y = y if self.scale == 1 else y * self.scale
            x = x + (F.dropout(y, self.dropout) if self.dropout and self.training else y)
            after.append(tuple(state for _, state in results))
        return x, tuple(after)

    def _mix(self, index: int, outputs: list[Tensor]) -> Tensor:
        if self.parallel == "mean_norm" and len(outputs) > 1:
            norms: Any = self.branch_norms[str(index)]
            return torch.stack([norm(y) for norm, y in zip(norms, outputs, strict=True)]).mean(0)
        return torch.stack(outputs).sum(0) if len(outputs) > 1 else outputs[0]


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
