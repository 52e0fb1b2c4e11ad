"""What all layers share about a piece of text: positions, documents, padding, kinds of tokens; and where the next piece goes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


class Cursor(NamedTuple):
    """Where each row stands after the tokens read so far: what positions and documents need to go on."""

    position: Tensor  # (b,) int64: position of the next token in its document
    document: Tensor | None  # (b,) int64: running count of the documents begun before this one; None = never packed or padded
    label: Tensor | None  # (b,) int64: the caller's id of the current document


class Routed(NamedTuple):
    """What a mixture of experts tells the training step about one call."""

    load: Tensor  # (n_experts,) float: how many tokens each expert was chosen by, padding not counted
    loss: Tensor  # (): its auxiliary losses, weighed


@dataclass(frozen=True)
class Context:
    """What all layers share about a piece of text. b batch, t time.

    Padding is always leading in a row (the model moves it there): a block may count on that. A padded token neither
    changes a state nor is seen by any other token; what a block outputs there is never used, but must be finite.
    """

    positions: Tensor  # (b, t) int64: position in the document; 0 at padding
    documents: Tensor | None = None  # (b, t) int64: running count of documents in the row, -1 at padding; None = no packing, no padding
    reset: Tensor | None = None  # (b, t) bool: first token of a new document, the state before it must be forgotten; None = nowhere
    padding: Tensor | None = None  # (b, t) bool, leading in each row; None = nowhere
    kinds: Tensor | None = None  # (b, t) int64: TEXT, or what a token plan inserted (PREFIX, META, LANDMARK); None = all text
    shared: dict[str, Tensor] = field(default_factory=dict)  # values that one layer leaves for later layers of the same forward
    tokens: Tensor | None = None  # (b, t) int64: the ids that were read, -1 where a token was inserted; None = not known
    embedded: Tensor | None = None  # (b, t, d): what the first sub-layer reads; None = the block stands alone: what it reads itself
    routed: list[Routed] | None = None  # where mixtures of experts leave one each; None = not wanted, as everywhere but in a training step
    use: int = 0  # of a block that the pattern uses several times with the same weights (share: true): which time this is, from 0

    @property
    def keep(self) -> Tensor | None:
        """(b, t) bool: not padding; None = everywhere."""
        return None if self.padding is None else ~self.padding

    @property
    def pads(self) -> Tensor | None:
        """(b,) int64: the number of leading padded tokens of each row; None = no padding."""
        return None if self.padding is None else self.padding.sum(1)


TEXT, PREFIX, META, LANDMARK = range(4)


def advance(
    cursor: Cursor | None,
    batch: int,
    length: int,
    *,
    documents: Tensor | None = None,
    padding: Tensor | None = None,
    kinds: Tensor | None = None,
    tokens: Tensor | None = None,
    device: torch.device | str | None = None,
) -> tuple[Context, Cursor]:
    """The context of the next `length` tokens of each row, and the cursor after them.

    documents: (b, t) ids, any integers; a new document starts where the id changes. None = the current document goes on.
    padding: (b, t) bool, leading in each row. kinds, tokens: (b, t), see Context.
    """
    start = torch.zeros(batch, dtype=torch.int64, device=device) if cursor is None else cursor.position
    device = start.device
    steps = torch.arange(length, device=device)
    if padding is not None and not bool(padding.any()):
        padding = None
    packed = documents is not None or padding is not None or (cursor is not None and cursor.document is not None)
    if not packed:
        positions = start[:, None] + steps
        return Context(positions, kinds=kinds, tokens=tokens), Cursor(start + length, None, None)

    count = torch.zeros_like(start) if cursor is None or cursor.document is None else cursor.document
    label = cursor.label if cursor is not None else None
    real = torch.ones(batch, length, dtype=torch.bool, device=device) if padding is None else ~padding
    pads = (~real).sum(1)
    has_text = pads < length
    if documents is None:
        reset = torch.zeros_like(real)
    else:
        first = documents.gather(1, pads.clamp(max=length - 1)[:, None])
        fresh = start == 0  # nothing read yet: the first document needs no reset
        before = first if label is None else torch.where(fresh[:, None], first, label[:, None])
        ids = torch.where(real, documents, before)  # padding goes on with what was before it
        reset = (ids != torch.cat([before, ids[:, :-1]], 1)) & real
        label = torch.where(has_text, ids[:, -1], before[:, 0])
    run = reset.cumsum(1)
    offsets = steps - pads[:, None]  # index among the real tokens of the row
    last_reset = torch.where(reset, offsets, -1).cummax(1).values
    positions = torch.where(run > 0, offsets - last_reset, start[:, None] + offsets).where(
        real, torch.zeros((), dtype=torch.int64, device=device)
    )
    numbers = (count[:, None] + run).where(real, torch.full((), -1, dtype=torch.int64, device=device))
    after = Cursor(torch.where(has_text, positions[:, -1] + 1, start), count + run[:, -1], label)
    ctx = Context(positions, numbers, reset if bool(reset.any()) else None, padding, kinds, tokens=tokens)
    return ctx, after
