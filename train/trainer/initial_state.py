"""Initial recurrent state of each training sequence, as `train.state` says.

none    Every sequence starts from an empty state.
pass    With probability `state_share` a sequence starts from the final state of another sequence of the step before, gradient stopped:
        the model meets the states that long text leads to (state passing; Ruiz & Gu, arXiv:2507.02782). The others start empty.
tbptt   Each sequence starts from the final state of the one in its place in the step before, gradient stopped: truncated
        backpropagation through time over streamed text.
noise, fitted   With probability `state_share` a sequence starts, at position 0, from a recurrent state sampled from the state
        distribution (see state_distribution.py), and from empty attention caches; the others start empty.

This holds from the step on that is `state_from` of the way; before that every sequence starts empty. A sequence that starts empty
beside others that do not is marked as the beginning of a new document, so that the model ignores the state in its place.
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
from train.trainer.checkpoint import damaged
from train.trainer.state_distribution import StateDistribution, fitted, fixed, recurrent, sample
from zoo.config.model import ModelConfig
from zoo.ledger.growth import growing
from zoo.model.model import ModelState

SAMPLED = ("noise", "fitted")  # values of train.state that sample from a state distribution


def step_seed(seed: int, step: int, what: str) -> int:
    """A 32-bit seed for one use in one step: the same whenever and wherever the step is run."""
    return int.from_bytes(hashlib.blake2b(f"{what}/{seed}/{step}".encode(), digest_size=4).digest(), "little")


class InitialStates:
    """The final states of the last step, one for each of the `accumulate` micro-batches, and the initial states of the next step.

    With noise and fitted, `states` holds one StateDistribution. steps: of the whole run, which `state_from` is a share of.
    """

    def __init__(self, train: TrainConfig, model: ModelConfig, seed: int, steps: int = 0) -> None:
        self.mode, self.share, self.seed = train.state, train.state_share, seed
        self.sigma, self.batch_size, self.accumulate = train.state_noise, train.batch_size, train.accumulate
        self.first = math.ceil(round(train.state_from * steps, 6))  # 0.9 * 10 steps is a little more than 9
        self.restart = _checked(train, model)
        self.states: list[Any] = []

    def of_step(self, step: int, documents: list[Tensor | None]) -> list[tuple[Any, Tensor | None]]:
        """For each micro-batch of the step: its initial state (None = empty), and its documents (b, t)."""
        if not self.states or step < self.first:
            return [(None, ids) for ids in documents]
        if self.mode == "tbptt":
            return list(zip(self.states, documents, strict=True))
        generator = torch.Generator().manual_seed(step_seed(self.seed, step, "state"))
        if self.mode in SAMPLED:
            return [_sampled(self.states[0], ids, self.batch_size, self.share, generator) for ids in documents]
        return [_passed(state, ids, self.share, generator) for state, ids in zip(self.states, documents, strict=True)]

    def keep(self, states: list[Any]) -> None:
        """Take in the final states of a step, one for each micro-batch."""
        if self.mode in SAMPLED:
            self.states = [self._distribution([self._recurrent(state) for state in states])]
        elif self.mode != "none":
            self.states = [detach(self._without_growing(state)) for state in states]

    def restore(self, states: list[Any]) -> None:
        """Go on with the `states` of a checkpoint. Raises ConfigError where they are not as many as a step leaves."""
        expected = 0 if self.mode == "none" else 1 if self.mode in SAMPLED else self.accumulate
        if len(states) != expected:
            raise damaged("checkpoint/carried.safetensors", f"it holds {len(states)} states, a step leaves {expected}")
        self.states = states

    def _without_growing(self, state: Any) -> Any:
        if not self.restart:
            return state
        layers = [[None if (i, j) in self.restart else own for j, own in enumerate(layer)] for i, layer in enumerate(state.layers)]
        return state._replace(layers=tuple(map(tuple, layers)))

    def _recurrent(self, state: Any) -> Any:
        """The layers' states without those that can't be sampled. Raises ConfigError if none is left."""
        layers = self._without_growing(state).layers
        kept = tuple(tuple(own if recurrent(own) else None for own in layer) for layer in layers)
        if not state_tensors(kept):
            raise ConfigError("train.state", self.mode, "this model has no recurrent state", "choices: none")
        return detach(kept)

    def _distribution(self, layers: list[Any]) -> StateDistribution:
        if self.sigma is not None:
            return self.states[0] if self.states else fixed(layers[0], self.sigma)
        return fitted(self.states[0] if self.states else None, layers)


def _checked(train: TrainConfig, model: ModelConfig) -> frozenset[tuple[int, int]]:
    """The branches that start empty in every step. Raises ConfigError where a state can't go on from step to step."""
    if train.state == "none":
        return frozenset()
    if model.tokens.memory is not None:  # its segments are bounded, but the sequences of a batch must stay in step
        if train.state != "tbptt":
            raise ConfigError("train.state", train.state, "can't mix the sequences of a segment memory", "choices: none, tbptt")
        return frozenset()
    grows, rule = growing(model), train.growing_state
    if train.state in SAMPLED:
        _check_sampled(train, model)
        return frozenset(grows)
    for name in grows.values():
        able = rule != "restart" or model.named[name].config.restartable
        require(able, "train.growing_state", rule, f"{name} can't begin in the middle of a text", "choices: refuse, keep")
    if grows and rule == "refuse":
        names = ", ".join(dict.fromkeys(grows.values()))
        rule = f"the state of {names} grows with the text, step after step"
        raise ConfigError("train.state", train.state, rule, "give it a window, or set train.growing_state: restart (or keep)")
    return frozenset(grows if rule == "restart" else ())


def _check_sampled(train: TrainConfig, model: ModelConfig) -> None:
    """Raise ConfigError for a model whose states can't be sampled."""
    rule, others = train.growing_state, "choices: refuse, restart, which are one here"
    require(rule != "keep", "train.growing_state", rule, f"with state: {train.state} there is no cache to keep", others)
    for name, named in model.named.items():
        windowed = isinstance(named.config, Bounded) and named.config.state_window is not None
        why = f"{name} has a state_window, whose state must be that of the inputs beside it"
        require(not windowed, "train.state", train.state, why, "choices: none, pass, tbptt")


def _sampled(
    distribution: StateDistribution, documents: Tensor | None, sequences: int, share: float, generator: torch.Generator
) -> tuple[Any, Tensor | None]:
    """A sampled state at position 0 for the chosen sequences; `documents` marks the others, which stand past it, as new documents."""
    chosen = torch.rand(sequences, generator=generator) < share
    layers = sample(distribution, sequences, generator)
    if not chosen.any():
        return None, documents
    device = state_tensors(layers)[0].device
    state = ModelState(Cursor((~chosen).long().to(device), None, None), layers)
    return (state, None) if documents is None and chosen.all() else _labelled(state, documents, chosen.to(device))


def _passed(state: Any, documents: Tensor | None, share: float, generator: torch.Generator) -> tuple[Any, Tensor | None]:
    """Another sequence's state (one cycle: no sequence gets its own) for the chosen sequences; `documents` marks the others."""
    device = state.cursor.position.device
    b = state.cursor.position.shape[0]
    chosen = torch.rand(b, generator=generator) < share
    cycle = torch.randperm(b, generator=generator)
    source = torch.empty_like(cycle)
    source[cycle] = cycle.roll(1)
    if not chosen.any():
        return None, documents
    state = map_state(lambda x: x.index_select(0, source.to(device)), state)
    if documents is None and chosen.all() and state.cursor.document is None:
        return state, None
    return _labelled(state, documents, chosen.to(device))


def _labelled(state: Any, documents: Tensor | None, chosen: Tensor) -> tuple[Any, Tensor]:
    """The state with its cursor's document label set so that exactly the chosen sequences go on with it."""
    position, count, _ = state.cursor
    if documents is None:
        documents = torch.zeros(len(chosen), 1, dtype=torch.int64, device=chosen.device)
    first = documents[:, 0]
    count = torch.zeros_like(position) if count is None else count
    return state._replace(cursor=Cursor(position, count, torch.where(chosen, first, first - 1))), documents
