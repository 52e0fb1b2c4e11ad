"""A model's state as transformers' generate carries it: one object that each forward call moves on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from zoo.model import State
from zoo.rows import select_rows


@dataclass
class ZooCache:
    """past_key_values of a zoo model. Of transformers' Cache it has what generate asks for; what it can't do (to go back, which a state
    that is not a list of tokens can't) is refused by ZooForCausalLM._is_stateful."""

    state: State | None = None  # None: nothing read yet
    seen: int = 0  # tokens read, padding included
    is_compileable = False  # its tensors change shapes

    def advance(self, state: State, tokens: int) -> None:
        """Take the state after so many more tokens."""
        self.state, self.seen = state, self.seen + tokens

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens read, padding included; alike for all layers."""
        return self.seen

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i becomes what row beam_idx[i] was."""
        self.state = select_rows(self.state, beam_idx)

    def reset(self) -> None:
        """Back to the start of a text."""
        self.state, self.seen = None, 0

    def __deepcopy__(self, memo: dict[int, Any]) -> ZooCache:
        """A cache of its own; the state is a value that nothing changes in place."""
        return ZooCache(self.state, self.seen)
