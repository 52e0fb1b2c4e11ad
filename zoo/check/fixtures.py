"""A block under test, and texts to read with it: used by the contract and by the comparison of back ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from blocks.base import Config
from blocks.context import LANDMARK, META, TEXT, Context, Cursor, advance

LENGTH = 37  # odd, so that it divides into no chunk


class Subject(NamedTuple):
    """A block under test."""

    config: Config
    block: nn.Module
    d_model: int
    layer: int = 1  # which of the n_layers mixers of a model it is
    n_layers: int = 3

    def rebuilt(self) -> Subject:
        """The same with initial weights, in float32."""
        return self._replace(block=self.config.build(self.d_model, self.layer, self.n_layers))


class Piece(NamedTuple):
    """Consecutive tokens of a batch and what their Context is made from."""

    x: Tensor  # (b, t, d)
    documents: Tensor | None = None
    padding: Tensor | None = None
    kinds: Tensor | None = None
    tokens: Tensor | None = None

    def cut(self, start: int, stop: int) -> Piece:
        return Piece(*(None if p is None else p[:, start:stop] for p in self))  # type: ignore[arg-type]


def scrambled(block: nn.Module) -> nn.Module:
    """The block in float64 with its constant parameters moved, so that no error is hidden by a factor of 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in block.parameters():
            if parameter.numel() > 0 and bool((parameter == parameter.flatten()[0]).all()):
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return block.double().eval()


def random_piece(subject: Subject, length: int = LENGTH, batch: int = 2, seed: int = 0) -> Piece:
    """Random embeddings, with the kinds and the ids that the block needs."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, length, subject.d_model, generator=generator, dtype=torch.float64)
    return Piece(x, kinds=kinds_of(subject.config, batch, length), tokens=ids(batch, length, seed))


def kinds_of(config: Config, batch: int, length: int) -> Tensor | None:
    """(batch, length), every fifth token of a kind that the block needs; None where it needs none."""
    if not config.needs_kinds:
        return None
    kind = next((k for k in config.needs_kinds if k in (META, LANDMARK)), TEXT)
    index = torch.arange(length)
    return torch.where(index % 5 == 4, kind, TEXT).expand(batch, length).contiguous()


def ids(batch: int, length: int, seed: int = 0) -> Tensor:
    """Token ids of so small a vocabulary that they come again and again."""
    return torch.randint(4, (batch, length), generator=torch.Generator().manual_seed(seed))


def read(subject: Subject, pieces: Sequence[Piece], state: Any = None, cursor: Cursor | None = None) -> tuple[Tensor, Any, Cursor]:
    """The outputs of consecutive pieces, the state and the cursor after them."""
    outputs = []
    for piece in pieces:
        ctx, cursor = _context(piece, cursor)
        y, state = subject.block(piece.x, state, ctx)
        outputs.append(y)
    assert cursor is not None
    return torch.cat(outputs, 1), state, cursor


def _context(piece: Piece, cursor: Cursor | None) -> tuple[Context, Cursor]:
    b, t, _ = piece.x.shape
    _, documents, padding, kinds, tokens = piece
    return advance(cursor, b, t, documents=documents, padding=padding, kinds=kinds, tokens=tokens, device=piece.x.device)


def cut_up(piece: Piece, sizes: Sequence[int]) -> list[Piece]:
    """Consecutive pieces of these sizes."""
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [piece.cut(end - size, end) for size, end in zip(sizes, ends, strict=True)]
