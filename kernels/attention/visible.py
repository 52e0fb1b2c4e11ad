"""Which keys a query sees: one rule, used by every back end."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sight:
    """The mask of a call as a rule: t queries, the last of s keys. See the package for the meaning of each field."""

    t: int
    s: int
    q_positions: Tensor | None  # (b, t)
    k_positions: Tensor | None  # (b, s)
    q_documents: Tensor | None  # (b, t)
    k_documents: Tensor | None  # (b, s)
    window: int | None
    sink_tokens: int

    @property
    def plain(self) -> bool:
        """Every row has the same mask, and every query sees at least itself."""
        return self.k_documents is None and self.k_positions is None


def sight(
    t: int,
    s: int,
    q_positions: Tensor | None,
    k_positions: Tensor | None,
    q_documents: Tensor | None,
    k_documents: Tensor | None,
    window: int | None,
    sink_tokens: int,
) -> Sight:
    """The rule of a call, checked. Raises ValueError."""
    if t > s:
        raise ValueError(f"attention: {t} queries but only {s} keys; the queries are the last of the keys")
    if window is not None and window < 1:
        raise ValueError(f"attention: window = {window} must be at least 1 (a query sees itself)")
    if (q_documents is None) != (k_documents is None):
        raise ValueError("attention: q_documents and k_documents come together")
    if q_positions is not None and k_positions is None:
        raise ValueError("attention: q_positions needs k_positions")
    if window is None or sink_tokens == 0:
        sink_tokens = 0
    elif k_documents is not None and k_positions is None:
        raise ValueError("attention: sink_tokens in packed rows needs k_positions")
    if window is None or (sink_tokens == 0 and q_positions is None):
        q_positions = k_positions = None  # nothing asks for them
    return Sight(t, s, q_positions, k_positions, q_documents, k_documents, window, sink_tokens)


def at(x: Tensor, index: Tensor) -> Tensor:
    """Entries of x (b, s) at index (b or 1, ...), clamped into the row."""
    flat = index.expand(x.shape[0], *index.shape[1:]).flatten(1).clamp(0, x.shape[1] - 1)
    return x.gather(1, flat).unflatten(1, index.shape[1:])


def seen(view: Sight, rows: Tensor, keys: Tensor) -> Tensor:
    """What each query sees: bool (b or 1, n, rows, keys).

    rows (n, rows): index of the query among the t; keys (b or 1, n, keys): index among the s, out of range = unseen.
    """
    distance = (rows + view.s - view.t)[..., None] - keys[:, :, None]
    visible = (distance >= 0) & (keys >= 0)[:, :, None]
    if view.window is not None:
        k_position = keys if view.k_positions is None else at(view.k_positions, keys)
        if view.q_positions is not None:
            distance = at(view.q_positions, rows[None])[..., None] - k_position[:, :, None]
        visible = visible & ((distance < view.window) | (k_position < view.sink_tokens)[:, :, None])
    if view.q_documents is not None and view.k_documents is not None:
        q_document, k_document = at(view.q_documents, rows[None]), at(view.k_documents, keys)
        visible = visible & (q_document[..., None] == k_document[:, :, None]) & (q_document >= 0)[..., None]
    return visible


def first_sinks(view: Sight, rows: Tensor) -> Tensor:
    """Where the document of each block of queries begins among the keys: (b or 1, n). rows (n, rows), see `seen`.

    Only the first document of a block can begin before the block's own keys.
    """
    if view.q_documents is None or view.k_documents is None:
        return torch.zeros(1, rows.shape[0], dtype=torch.int64, device=rows.device)
    documents = at(view.q_documents, rows[None])
    first = torch.where(documents >= 0, documents, torch.iinfo(torch.int64).max).amin(-1)
    return torch.searchsorted(view.k_documents.contiguous(), first)
