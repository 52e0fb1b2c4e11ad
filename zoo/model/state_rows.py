"""Chooses, repeats and reorders the sequences of a model's state."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from blocks.state import map_state
from zoo.model.segment_memory import SegmentState


def select_rows(state: Any, rows: Tensor) -> Any:
    """The state whose row i is row rows[i] (n,) int64 of this one; None stays None. Every tensor of a state has the batch first; the
    sequences of a segment memory that are at different places are groups of their own."""
    if isinstance(state, SegmentState) and len(state.groups) > 1:
        return SegmentState(tuple(state.groups[i] for i in rows.tolist()))
    return map_state(lambda t: t.index_select(0, rows.to(t.device)), state)
