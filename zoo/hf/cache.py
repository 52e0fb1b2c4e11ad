"""A model's state in the form that transformers' generate expects: one object that each forward call updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.model.model import State
from zoo.model.state_rows import select_rows


@dataclass
class ZooCache:
    """past_key_values of a zoo model: the methods of transformers' Cache that generate calls. It can't be cropped, since a state is not a
    list of tokens: ZooForCausalLM._is_stateful makes generate refuse what would need that."""

    state: State | None = None  # None: nothing read yet
    seen: int = 0  # tokens read, padding included
    lengths: Tensor | None = None  # (b,) int64: tokens read of each row without its padding; None: nothing read yet
    is_compileable = False  # its tensors change shapes

    def advance(self, state: State, tokens: int, real: Tensor) -> None:
        """Take the state after so many more tokens, `real` (b,) of them without padding."""
        self.state, self.seen = state, self.seen + tokens
        self.lengths = real if self.lengths is None else self.lengths + real

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens read, padding included; alike for all layers."""
        return self.seen

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i becomes what row beam_idx[i] was."""
        self.state = select_rows(self.state, beam_idx)
        self.lengths = select_rows(self.lengths, beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in this order."""
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row so many times, one after the other: a prompt read once, continued in several ways."""
        if self.lengths is not None:
            rows = torch.arange(len(self.lengths), device=self.lengths.device)
            self.reorder_cache(rows.repeat_interleave(repeats))

    def reset(self) -> None:
        """Back to the start of a text."""
        self.state, self.seen, self.lengths = None, 0, None

    def __deepcopy__(self, memo: dict[int, Any]) -> ZooCache:
        """A cache of its own; the state is a value that nothing changes in place."""
        return ZooCache(self.state, self.seen, self.lengths)
