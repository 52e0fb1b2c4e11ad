"""Segment-level recurrent memory (RMT, Bulatov et al., arXiv:2207.06881) over any stack.

A segment is read as [memory | x_1 .. x_n | memory]; the hidden states at the closing memory slots are the next segment's memory,
and nothing else is carried: every layer's state begins anew. The closing slots are read as soon as a segment is full.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from blocks.state import map_state
from zoo.config.inserted_tokens import Memory

Run = Callable[[Tensor, Any], tuple[Tensor, Any]]  # (x (b, t, d), inner state) -> normed hidden states, inner state


class Group(NamedTuple):
    """Sequences of the batch that are at the same place of their segment."""

    memory: Tensor  # (rows, count, d): what this segment was opened with
    filled: int  # text tokens of the open segment read so far
    label: int | None  # the caller's id of the current document
    inner: Any  # the stack's state within the segment; None = not opened


class SegmentState(NamedTuple):
    """One group while all sequences are at the same place; one a sequence once documents or padding have set them apart."""

    groups: tuple[Group, ...]


class Segments(nn.Module):
    """Runs a stack segment by segment."""

    def __init__(self, config: Memory, d_model: int) -> None:
        super().__init__()
        self.config = config
        self.memory = nn.Parameter(0.02 * torch.randn(config.count, d_model))

    def run(
        self, x: Tensor, state: SegmentState | None, inner: Run, documents: Tensor | None, padding: Tensor | None
    ) -> tuple[Tensor, SegmentState]:
        """x (b, t, d) embeddings -> hidden states (b, t, d) and the state. documents, padding (leading) as in the model."""
        groups = (self._open(x.shape[0], x),) if state is None else state.groups
        if documents is None and padding is None and len(groups) == 1:
            hidden, group = self._advance(x, groups[0], inner)
            return hidden, SegmentState((group,))
        rows = _split(groups)
        out = torch.zeros_like(x)
        for i, group in enumerate(rows):
            pads = 0 if padding is None else int(padding[i].sum())
            hidden, rows[i] = self._row(x[i : i + 1, pads:], group, inner, None if documents is None else documents[i, pads:])
            out[i : i + 1, pads:] = hidden
        return out, SegmentState(tuple(rows))

    def _open(self, rows: int, x: Tensor) -> Group:
        return Group(self.memory.to(x.dtype).repeat(rows, 1, 1), 0, None, None)

    def _row(self, x: Tensor, group: Group, inner: Run, documents: Tensor | None) -> tuple[Tensor, Group]:
        """One sequence without padding, document by document."""
        if documents is None or x.shape[1] == 0:
            return self._advance(x, group, inner)
        ids, lengths = torch.unique_consecutive(documents, return_counts=True)
        parts = []
        for label, piece in zip(ids.tolist(), x.split(lengths.tolist(), 1), strict=True):
            if group.label is not None and label != group.label:
                group = self._open(1, x)
            hidden, group = self._advance(piece, group._replace(label=label), inner)
            parts.append(hidden)
        return torch.cat(parts, 1), group

    def _advance(self, x: Tensor, group: Group, inner: Run) -> tuple[Tensor, Group]:
        parts = []
        while x.shape[1] > 0:
            memory, filled, label, state = group
            if state is None:
                _, state = inner(memory, None)
            piece, x = x[:, : self.config.segment - filled], x[:, self.config.segment - filled :]
            hidden, state = inner(piece, state)
            parts.append(hidden)
            group = Group(memory, filled + piece.shape[1], label, state)
            if group.filled == self.config.segment:
                closing, _ = inner(memory, state)
                group = Group(closing, 0, label, None)
        return torch.cat(parts, 1) if parts else x, group


def _split(groups: tuple[Group, ...]) -> list[Group]:
    """One group a sequence."""
    rows = []
    for group in groups:
        for i in range(group.memory.shape[0]):
            rows.append(group._replace(memory=group.memory[i : i + 1], inner=_rows(group.inner, i)))
    return rows


def _rows(state: Any, i: int) -> Any:
    return None if state is None else map_state(lambda t: t[i : i + 1], state)
