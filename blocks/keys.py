"""The cache of attention blocks: the keys and values of the tokens read so far, as a value.

Without packing and padding a cache is only its keys and values. With them each row also carries positions and documents,
its padding stays leading, and what no later token can see (earlier documents, keys behind the window) is dropped.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Num
from torch import Tensor

from blocks.context import Context
from kernels.attention import attention


class Keys(NamedTuple):
    """What attention remembers, in the order of the text, padding leading. b batch, s keys, m key heads."""

    keys: Tensor  # (b, s, m, e), after position embedding, in the dtype of the activations (n-gram heads: token ids, int64)
    values: Tensor  # (b, s, m, w)
    positions: Tensor | None  # (b, s) int64: position in the document; None = plain. Keys of a once plain past have their index here
    documents: Tensor | None  # (b, s) int64: running count of documents in the row, -1 = padding; None = plain


def append(past: Keys | None, keys: Num[Tensor, "b t n e"], values: Float[Tensor, "b t m w"], ctx: Context) -> Keys:
    """The cache after a piece of text: the last t entries of each row are its tokens (of a padded row: the last t - pads)."""
    positions, documents = (None, None) if ctx.documents is None else (ctx.positions, ctx.documents)
    if past is None:
        return Keys(keys, values, positions, documents)
    past = past._replace(keys=past.keys.to(keys.dtype), values=past.values.to(values.dtype))
    if past.documents is None and documents is None:
        return Keys(torch.cat([past.keys, keys], 1), torch.cat([past.values, values], 1), None, None)
    past = _packed(past)
    if documents is None:  # the document goes on
        positions, documents = ctx.positions, _current(past)[:, None].expand_as(ctx.positions)
    documents = torch.cat([_known(past.documents), _known(documents)], 1)
    positions = torch.cat([_known(past.positions), _known(positions)], 1)
    full = Keys(torch.cat([past.keys, keys], 1), torch.cat([past.values, values], 1), positions, documents)
    return full if ctx.padding is None else _compact(full, documents >= 0)


def query_documents(cache: Keys, ctx: Context) -> Tensor | None:
    """The documents (b, t) of the piece that was appended last, -1 at padding; None = plain."""
    if ctx.documents is not None or cache.documents is None:
        return ctx.documents
    return cache.documents[:, cache.documents.shape[1] - ctx.positions.shape[1] :]


def trim(cache: Keys, window: int | None = None, sink_tokens: int = 0) -> Keys:
    """What later tokens can still see: all of the current document, or its last window - 1 keys and first sink_tokens ones."""
    n = cache.keys.shape[1]
    if cache.documents is not None:
        index = torch.arange(n, device=cache.documents.device)
        alive = (cache.documents == _current(cache)[:, None]) & (cache.documents >= 0)
        if window is not None:
            alive = alive & ((index > n - window) | (_known(cache.positions) < sink_tokens))
        return _compact(cache, alive, drop=True)
    if window is None or n <= sink_tokens + window - 1:
        return cache
    keys, values = (torch.cat([x[:, :sink_tokens], x[:, n - window + 1 :]], 1) for x in (cache.keys, cache.values))
    return Keys(keys, values, None, None)


def attend(
    q: Float[Tensor, "b t h e"],
    cache: Keys,
    ctx: Context,
    *,
    window: int | None = None,
    sink_tokens: int = 0,
    softcap: float | None = None,
    sink_logits: Float[Tensor, "h"] | None = None,
    scale: float | None = None,
    chunk: int | None = None,
) -> Float[Tensor, "b t h w"]:
    """Attention of the piece that was appended last to everything in the cache. See kernels.attention.

    chunk: only to tokens of the same `chunk` positions of a document; the cache must hold positions from its start (`located`).
    """
    q_documents, k_documents = query_documents(cache, ctx), cache.documents
    if chunk is not None:
        starts = _chunks(k_documents, cache.positions, chunk)
        q_documents, k_documents = (_first(starts, x) for x in (_chunks(q_documents, ctx.positions, chunk), starts))
    return attention(
        q,
        cache.keys,
        cache.values,
        k_positions=cache.positions,
        q_documents=q_documents,
        k_documents=k_documents,
        window=window,
        sink_tokens=sink_tokens,
        softcap=softcap,
        sink_logits=sink_logits,
        scale=scale,
    )


def cache_bytes(
    length: int, heads: int, key: int, value: int, *, window: int | None = None, sink_tokens: int = 0, located: bool = False
) -> int:
    """Bytes of a trimmed float32 cache after `length` tokens of one row; located: with positions and documents."""
    kept = length if window is None else min(length, sink_tokens + window - 1)
    return (4 * heads * (key + value) + 16 * located) * kept


def located(past: Keys | None, ctx: Context) -> Context:
    """A context in which a text that begins is its document 0, so that its cache holds positions."""
    if past is not None or ctx.documents is not None:
        return ctx
    return replace(ctx, documents=torch.zeros_like(ctx.positions))


def _chunks(documents: Tensor | None, positions: Tensor | None, chunk: int) -> Tensor:
    """A number for each chunk of each document (b, s), in order, -1 at padding."""
    documents = _known(documents)
    return torch.where(documents < 0, documents, (documents << 32) + _known(positions) // chunk).contiguous()


def _first(chunks: Tensor, of: Tensor) -> Tensor:
    """Where the chunk of each token (b, t) begins among the keys' chunks (b, s), -1 at padding: a small number for each."""
    return torch.searchsorted(chunks, of).where(of >= 0, -1)


def _known(x: Tensor | None) -> Tensor:
    """x, which is not None: positions and documents are both there or both not."""
    if x is None:
        raise ValueError("a cache holds positions and documents together, or neither")
    return x


def _packed(cache: Keys) -> Keys:
    """The same cache with positions and documents: what was read plainly is document 0."""
    if cache.documents is not None:
        return cache
    b, n = cache.keys.shape[:2]
    index = torch.arange(n, device=cache.keys.device).expand(b, n)
    return cache._replace(positions=index, documents=torch.zeros_like(index))


def _current(cache: Keys) -> Tensor:
    """The document (b,) that each row is in."""
    documents = _known(cache.documents)
    return torch.cat([documents.new_zeros(documents.shape[0], 1), documents], 1).amax(1)


def _compact(cache: Keys, alive: Tensor, *, drop: bool = False) -> Keys:
    """Each row's entries that are `alive` at its end, in order, the others before them as padding. drop: columns where no row has one."""
    order = alive.long().argsort(dim=1, stable=True)
    if drop:
        order = order[:, alive.shape[1] - int(alive.sum(1).max()) :]
    wide = order[..., None, None]
    keys, values = (x.gather(1, wide.expand(-1, -1, *x.shape[2:])) for x in (cache.keys, cache.values))
    documents = _known(cache.documents).where(alive, torch.full((), -1, dtype=torch.int64, device=alive.device))
    return Keys(keys, values, _known(cache.positions).gather(1, order), documents.gather(1, order))
