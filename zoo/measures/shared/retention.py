"""Retention: how much of what a state held is still in it after T more tokens.

For one tensor S of one block's state at token t: the block reads tokens t .. t+T-1 twice, once from its state and once from a twin
in which S alone is set to zero, on the very same inputs. Then, head by head,

    retention(T) = ||S_(t+T) - twin S_(t+T)|| / ||S_t||

Where the recurrence is linear in S (S <- A_t S + ..., A_t depending on the input alone) this is ||A_(t+T-1) ... A_t S_t|| / ||S_t||: for
scalar decay exactly the product of the decays (the retention of Stuffed Mamba, arXiv:2410.07145), for vector decay and delta
rules the share of this state's norm that survives. Where it is not linear (test-time training) it is what the start makes of the
end. Inputs are the same because a layer's input depends only on layers below it. In float32 it has a floor of about 1e-7.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from blocks.context import Context
from zoo.measures.shared.state_tensors import Name, by_head, heads, leaves, zeroed
from zoo.measures.shared.statistics import Array
from zoo.measures.shared.streaming import Counter, spans, stream
from zoo.model.model import Model


def retention(
    model: Model, tokens: Tensor, start: int, horizons: Sequence[int], piece: int, counter: Counter
) -> Iterator[tuple[int, dict[Name, Array]]]:
    """For each horizon, rising: (horizon, tensor -> retention (b, h), or (b,) without heads; NaN where S_t is zero).

    tokens (b, start + the longest horizon at least). Attention caches and what else grows with the text are left out.
    """
    state: Any = None
    for read in stream(model, tokens, None, spans(start, piece)):
        state = read.state
        counter.add(read.nll.numel())
    stops = sorted(start + h for h in set(horizons))
    with Twins(model, state) as twins:
        for read in stream(model, tokens, None, spans(stops[-1], piece, stops, start), state):
            counter.add(read.nll.numel())
            token = read.start + read.nll.shape[1]
            if token in stops:
                yield token - start, twins.retention(read.state)


class Twins:
    """Beside every call of a block in the stack, calls of the same block from its twins' states."""

    def __init__(self, model: Model, state: Any) -> None:
        self.blocks: list[nn.Module] = [model.stack.blocks[key] for keys in model.stack.layers for key in keys]
        self.names = [(layer, name) for layer, names in enumerate(model.config.layers) for name in names]
        inner = [inner for branches in state.layers for inner in branches]
        self.start = [_tensors(s) for s in inner]
        self.states = [
            {path: zeroed(s, path) for path, x in tensors.items() if _can_be_zeroed(x)}
            for s, tensors in zip(inner, self.start, strict=True)
        ]
        self.calls = 0  # so far: the stack calls its blocks in one order

    def __enter__(self) -> Twins:
        self.hooks = [block.register_forward_pre_hook(self._call) for block in dict.fromkeys(self.blocks)]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _call(self, block: nn.Module, args: tuple[Tensor, Any, Context]) -> None:
        x, _, ctx = args
        twins = self.states[self.calls % len(self.states)]
        for path, state in twins.items():
            _, twins[path] = block.forward(x, state, replace(ctx, shared=dict(ctx.shared)))  # what it shares must not reach other layers
        self.calls += 1

    def retention(self, state: Any) -> dict[Name, Array]:
        """What is left of each tensor, see `retention`."""
        inner = [inner for branches in state.layers for inner in branches]
        found: dict[Name, Array] = {}
        for (layer, block), now, before, twins in zip(self.names, inner, self.start, self.states, strict=True):
            real = _tensors(now)
            for path, twin in twins.items():
                a, b, first = (heads(x).flatten(2) for x in (real[path], _tensors(twin)[path], before[path]))
                if a.shape == first.shape:
                    left = (a - b).norm(dim=-1) / first.norm(dim=-1)  # 0 / 0 = NaN
                    found[layer, block, path] = by_head(real[path], left)
        return found


def _tensors(state: Any) -> dict[str, Tensor]:
    """The tensors of a block's state by path, without attention caches."""
    return {path: leaf for path, leaf in leaves(state) if isinstance(leaf, Tensor)}


def _can_be_zeroed(x: Tensor) -> bool:
    return x.is_floating_point() and x.numel() > 0 and bool(torch.isfinite(x).all())
