"""What the rows of a step start from, besides nothing.

pass    With probability `state_share` a row starts from the final state of another sequence of the step before, gradient stopped: the
        model meets the states that long text leads to (state passing; Ruiz & Gu, arXiv:2507.02782). The others start from nothing.
tbptt   Each row starts from its own last state, gradient stopped: truncated backpropagation through time over streamed text.
noise, fitted   With probability `state_share` a row starts, at position 0, from a recurrent state that is drawn (see
        state_distribution.py), and from empty attention caches; the others start from nothing.

All of it from the step on that is `state_from` of the way; before that every row starts from nothing. A row that starts from nothing
beside others that do not is the beginning of a new document: what it was given is forgotten.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch
from torch import Tensor

from blocks.context import Cursor
from blocks.errors import ConfigError, require
from blocks.forgetting import Bounded
from blocks.state import detach, map_state, state_tensors
from train.config.run import TrainConfig
from train.trainer.state_distribution import Drawn, draw, fitted, fixed, recurrent
from zoo.config.model import ModelConfig
from zoo.ledger.growth import growing
from zoo.model.model import ModelState

DRAWN = ("noise", "fitted")


def step_seed(seed: int, step: int, what: str) -> int:
    """A 32-bit seed for one use in one step: the same whenever and wherever the step is run."""
    return int.from_bytes(hashlib.blake2b(f"{what}/{seed}/{step}".encode(), digest_size=4).digest(), "little")


class Carry:
    """The states after the last step, one a batch of `accumulate`; and what the next step makes of them. With noise and fitted `states`
    is the one distribution that they are drawn from. steps: of the whole run; they matter to `state_from` alone."""

    def __init__(self, train: TrainConfig, model: ModelConfig, seed: int, steps: int = 0) -> None:
        self.mode, self.share, self.seed = train.state, train.state_share, seed
        self.sigma, self.rows = train.state_noise, train.batch_size
        self.first = math.ceil(round(train.state_from * steps, 6))  # 0.9 * 10 steps is a little more than 9
        self.restart = _checked(train, model)
        self.states: list[Any] = []

    def start(self, step: int, documents: list[Tensor | None]) -> list[tuple[Any, Tensor | None]]:
        """For each batch of the step: the state that its rows start from, and its documents (b, t)."""
        if not self.states or step < self.first:
            return [(None, ids) for ids in documents]
        if self.mode == "tbptt":
            return list(zip(self.states, documents, strict=True))
        generator = torch.Generator().manual_seed(step_seed(self.seed, step, "state"))
        if self.mode in DRAWN:
            return [_drawn(self.states[0], ids, self.rows, self.share, generator) for ids in documents]
        return [_passed(state, ids, self.share, generator) for state, ids in zip(self.states, documents, strict=True)]

    def keep(self, states: list[Any]) -> None:
        """The states after a step."""
        if self.mode in DRAWN:
            self.states = [self._distribution([self._recurrent(state) for state in states])]
        elif self.mode != "none":
            self.states = [detach(self._without_growing(state)) for state in states]

    def _without_growing(self, state: Any) -> Any:
        if not self.restart:
            return state
        layers = [[None if (i, j) in self.restart else own for j, own in enumerate(layer)] for i, layer in enumerate(state.layers)]
        return state._replace(layers=tuple(map(tuple, layers)))

    def _recurrent(self, state: Any) -> Any:
        """The layers' states without those that can't be drawn. Raises ConfigError if none is left."""
        layers = self._without_growing(state).layers
        kept = tuple(tuple(own if recurrent(own) else None for own in layer) for layer in layers)
        if not state_tensors(kept):
            raise ConfigError("train.state", self.mode, "this model has no recurrent state", "choices: none")
        return detach(kept)

    def _distribution(self, layers: list[Any]) -> Drawn:
        if self.sigma is not None:
            return self.states[0] if self.states else fixed(layers[0], self.sigma)
        return fitted(self.states[0] if self.states else None, layers)


def _checked(train: TrainConfig, model: ModelConfig) -> frozenset[tuple[int, int]]:
    """The branches to start anew in every step. Raises ConfigError where the states can't be carried."""
    if train.state == "none":
        return frozenset()
    if model.tokens.memory is not None:  # its segments are bounded, but rows of one batch must stay in step
        if train.state != "tbptt":
            raise ConfigError("train.state", train.state, "can't mix the rows of a segment memory", "choices: none, tbptt")
        return frozenset()
    found, rule = growing(model), train.growing_state
    if train.state in DRAWN:
        _check_drawn(train, model)
        return frozenset(found)
    for name in found.values():
        able = rule != "restart" or model.named[name].config.restartable
        require(able, "train.growing_state", rule, f"{name} can't begin in the middle of a text", "choices: refuse, keep")
    if found and rule == "refuse":
        names = ", ".join(dict.fromkeys(found.values()))
        rule = f"the state of {names} grows with the text, step after step"
        raise ConfigError("train.state", train.state, rule, "give it a window, or set train.growing_state: restart (or keep)")
    return frozenset(found if rule == "restart" else ())


def _check_drawn(train: TrainConfig, model: ModelConfig) -> None:
    """Raise ConfigError for what can't be drawn."""
    rule, others = train.growing_state, "choices: refuse, restart, which are one here"
    require(rule != "keep", "train.growing_state", rule, f"with state: {train.state} there is no cache to keep", others)
    for name, named in model.named.items():
        windowed = isinstance(named.config, Bounded) and named.config.state_window is not None
        why = f"{name} has a state_window, whose state must be that of the inputs beside it"
        require(not windowed, "train.state", train.state, why, "choices: none, pass, tbptt")


def _drawn(distribution: Drawn, documents: Tensor | None, rows: int, share: float, generator: torch.Generator) -> tuple[Any, Tensor | None]:
    """A drawn state for the rows that are drawn, at position 0 of their text; documents to tell the others, which are past it."""
    chosen = torch.rand(rows, generator=generator) < share
    layers = draw(distribution, rows, generator)
    if not chosen.any():
        return None, documents
    device = state_tensors(layers)[0].device
    state = ModelState(Cursor((~chosen).long().to(device), None, None), layers)
    return (state, None) if documents is None and chosen.all() else _labelled(state, documents, chosen.to(device))


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
