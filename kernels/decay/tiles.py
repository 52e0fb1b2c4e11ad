"""What the scalar and the vector gate share: the shapes of a tile and the passing of states from tile to tile."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Gate = Literal["none", "scalar", "vector"]


class Within(NamedTuple):
    """What the tokens of a tile do among themselves, and how they read and write the state (c tiles of i tokens, r heads a group n)."""

    inner: Tensor  # (b, c, n, i, r, v) output from the tile's own tokens
    q: Tensor  # (b, c, n, i, k) queries of the state before the tile
    enter: Tensor | None  # (b, c, n, i, r, 1) factor on what they read
    k: Tensor  # (b, c, n, i, k) keys and
    v: Tensor  # (b, c, n, i, r, v) values of what is written into the state
    carry: Tensor | None  # (b, c, n, k or 1, r or 1, 1) what the tile keeps of the state before it


def split(x: Tensor, size: int) -> Tensor:
    """(b, t, ...) as (b, c, i, ...), the last tile filled with zeros."""
    x = F.pad(x, [0, 0] * (x.ndim - 2) + [0, -x.shape[1] % size])
    return x.unflatten(1, (-1, size))


def segments(reset: Tensor | None, size: int) -> Tensor | None:
    """(b, c, i): how many documents have begun in the tile; 0 = the document that the state before it belongs to."""
    return None if reset is None else split(reset.long(), size).cumsum(2)


def pass_states(first: Tensor, written: Tensor, carry: Tensor | None) -> tuple[Tensor, Tensor]:
    """The state before each tile, (b, c, n, k, r, v), and after the last, (b, n, k, r, v).

    first (b, n, k, r, v); written (b, c, n, k, r, v), what each tile adds; carry: what it keeps, None = all.
    """
    states = [first]
    kept = [None] * written.shape[1] if carry is None else carry.unbind(1)
    for new, keep in zip(written.unbind(1), kept, strict=True):
        states.append(states[-1] + new if keep is None else torch.addcmul(new, keep, states[-1]))
    return torch.stack(states[:-1], 1), states[-1]
