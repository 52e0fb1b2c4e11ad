"""What the rows of a step start from, besides nothing.

pass    With probability `state_share` a row starts from the final state of another sequence of the step before, gradient stopped: the
        model meets the states that long text leads to (state passing; Ruiz & Gu, arXiv:2507.02782). The others start from nothing.
tbptt   Each row starts from its own last state, gradient stopped: truncated backpropagation through time over streamed text.

A row that starts from nothing beside others that do not is the beginning of a new document: what it was given is forgotten.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from blocks.base import ConfigError, Cursor, detach, map_state, require
from train.config import TrainConfig
from zoo.config import ModelConfig

LONG = 1 << 14  # a state that still grows at this length grows with the text


def step_seed(seed: int, step: int, what: str) -> int:
    """A 32-bit seed for one use in one step: the same whenever and wherever the step is run."""
    return int.from_bytes(hashlib.blake2b(f"{what}/{seed}/{step}".encode(), digest_size=4).digest(), "little")


class Carry:
    """The states after the last step, one a batch of `accumulate`; and what the next step makes of them."""

    def __init__(self, train: TrainConfig, model: ModelConfig, seed: int) -> None:
        self.mode, self.share, self.seed = train.state, train.state_share, seed
        self.restart = _checked(train, model)
        self.states: list[Any] = []

    def start(self, step: int, documents: list[Tensor | None]) -> list[tuple[Any, Tensor | None]]:
        """For each batch of the step: the state that its rows start from, and its documents (b, t)."""
        if not self.states:
            return [(None, ids) for ids in documents]
        if self.mode == "tbptt":
            return list(zip(self.states, documents, strict=True))
        generator = torch.Generator().manual_seed(step_seed(self.seed, step, "state"))
        return [_passed(state, ids, self.share, generator) for state, ids in zip(self.states, documents, strict=True)]

    def keep(self, states: list[Any]) -> None:
        """The states after a step."""
        if self.mode != "none":
            self.states = [detach(self._without_growing(state)) for state in states]

    def _without_growing(self, state: Any) -> Any:
        if not self.restart:
            return state
        layers = [[None if (i, j) in self.restart else own for j, own in enumerate(layer)] for i, layer in enumerate(state.layers)]
        return state._replace(layers=tuple(map(tuple, layers)))


def growing(model: ModelConfig) -> dict[tuple[int, int], str]:
    """(layer, branch) -> block name, of the blocks whose state grows with the text for ever."""
    named = model.named
    size = {n: [b.config.cost(model.d_model, length).state_bytes for length in (LONG, 2 * LONG)] for n, b in named.items()}
    return {(i, j): n for i, names in enumerate(model.layers) for j, n in enumerate(names) if size[n][0] < size[n][1]}


def _checked(train: TrainConfig, model: ModelConfig) -> frozenset[tuple[int, int]]:
    """The branches to start anew in every step. Raises ConfigError where the states can't be carried."""
    if train.state == "none":
        return frozenset()
    if model.tokens.memory is not None:  # its segments are bounded, but rows of one batch must stay in step
        if train.state == "pass":
            raise ConfigError("train.state", "pass", "can't mix the rows of a segment memory", "choices: none, tbptt")
        return frozenset()
    found, rule = growing(model), train.growing_state
    for name in found.values():
        able = rule != "restart" or model.named[name].config.restartable
        require(able, "train.growing_state", rule, f"{name} can't begin in the middle of a text", "choices: refuse, keep")
    if found and rule == "refuse":
        names = ", ".join(dict.fromkeys(found.values()))
        rule = f"the state of {names} grows with the text, step after step"
        raise ConfigError("train.state", train.state, rule, "give it a window, or set train.growing_state: restart (or keep)")
    return frozenset(found if rule == "restart" else ())


def _passed(state: Any, documents: Tensor | None, share: float, generator: torch.Generator) -> tuple[Any, Tensor | None]:
    """The rows of a state in another order (one cycle: no row gets its own), for the rows that are drawn; documents to tell the others."""
    device = state.cursor.position.device
    b = state.cursor.position.shape[0]
    drawn = torch.rand(b, generator=generator) < share
    cycle = torch.randperm(b, generator=generator)
    source = torch.empty_like(cycle)
    source[cycle] = cycle.roll(1)
    if not drawn.any():
        return None, documents
    state = map_state(lambda x: x.index_select(0, source.to(device)), state)
    if documents is None and drawn.all() and state.cursor.document is None:
        return state, None
    return _labelled(state, documents, drawn.to(device))


def _labelled(state: Any, documents: Tensor | None, drawn: Tensor) -> tuple[Any, Tensor]:
    """The state with its cursor's label set so that exactly the drawn rows go on with it."""
    position, count, _ = state.cursor
    if documents is None:
        documents = torch.zeros(len(drawn), 1, dtype=torch.int64, device=drawn.device)
    first = documents[:, 0]
    count = torch.zeros_like(position) if count is None else count
    return state._replace(cursor=Cursor(position, count, torch.where(drawn, first, first - 1))), documents
