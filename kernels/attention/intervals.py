"""The rule of visibility as intervals, for programs that should know nothing of documents and positions.

Documents do not decrease along a row and positions do not decrease along a document, so query i sees the keys from low_i to itself,
and of those before low_i the ones from begin_i to sink_i: three numbers a query say what a tile of queries against keys would.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from kernels.attention.visible import Sight

SPAN = 2**32  # more than any position: a document and a position in it as one number that orders the keys of a row


class Intervals(NamedTuple):
    """int32, contiguous. Of a key's queries only where they end is kept: none comes before the key's own place."""

    queries: Tensor  # (b, 3, t): low, begin and sink; s where a query sees nothing
    keys: Tensor  # (b, 2, s): one past the last query that sees the key by the window, and by the window or as a sink


def intervals(view: Sight) -> Intervals | None:
    """The intervals of a call; None for a plain one, where every row's are the same and follow from the window."""
    if view.plain:
        return None
    keys = _ordered(view.k_documents, view.k_positions)
    document = keys.new_zeros(keys.shape[0], view.t) if view.q_documents is None else view.q_documents.long()
    document = (document * SPAN).contiguous()
    begin = torch.searchsorted(keys, document)
    low = torch.maximum(begin, _reach(view, keys, document))
    sink = torch.searchsorted(keys, document + view.sink_tokens)
    return Intervals(_of_queries(view, low, begin, sink), _of_keys(view, keys, low, begin))


def _ordered(documents: Tensor | None, positions: Tensor | None) -> Tensor:
    """(b, s) int64, non-decreasing from the first key that is no padding."""
    known = [] if documents is None else [documents.long() * SPAN]
    known += [] if positions is None else [positions.long()]
    return (known[0] if len(known) == 1 else known[0] + known[1]).contiguous()


def _reach(view: Sight, keys: Tensor, document: Tensor) -> Tensor:
    """The first key of each query's window (b or 1, t); it may lie before the document."""
    own = torch.arange(view.s - view.t, view.s, device=keys.device)[None]
    if view.window is None:
        return torch.zeros_like(own)
    if view.q_positions is None:
        return own - view.window + 1
    first = view.q_positions.long() - min(view.window, SPAN // 2)
    return torch.searchsorted(keys, document + first, right=True)


def _of_queries(view: Sight, low: Tensor, begin: Tensor, sink: Tensor) -> Tensor:
    table = torch.stack([low, begin, sink], 1)
    if view.q_documents is not None:
        table = table.masked_fill((view.q_documents < 0)[:, None], view.s)
    return table.int()


def _of_keys(view: Sight, keys: Tensor, low: Tensor, begin: Tensor) -> Tensor:
    index = torch.arange(view.s, device=keys.device).expand(keys.shape[0], -1).contiguous()
    window = torch.searchsorted(low.contiguous(), index, right=True)
    either = window
    if view.sink_tokens:
        either = torch.where(keys % SPAN < view.sink_tokens, torch.searchsorted(begin, index, right=True), window)
    table = torch.stack([window, either], 1)
    if view.k_documents is not None:
        table = table.masked_fill((view.k_documents < 0)[:, None], 0)
    return table.int()
