"""The cache of attention blocks: plain and packed pieces may follow one another, and what can't be seen is dropped."""

import itertools

import pytest
import torch
from torch import Tensor

from blocks.context import Cursor, advance
from blocks.keys import Keys, append, attend, cache_bytes, trim

B, M, G, E, W = 2, 2, 2, 3, 5
PIECES = ("plain", "packed", "padded", "one row padded away", "new documents")


def read(kinds: tuple[str, ...], window: int | None, sink_tokens: int, length: int = 7) -> tuple[list[Tensor], list[Tensor]]:
    """The outputs of pieces of the given kinds, by row and without padding; and those of each document alone, in one piece."""
    cursor: Cursor | None = None
    cache: Keys | None = None
    label = 0
    rows: list[list[Tensor]] = [[], []]
    texts: list[list[list[tuple[Tensor, ...]]]] = [[[]], [[]]]  # row, document, pieces of q, k, v
    for piece in kinds:
        q, k, v = (torch.randn(B, length, n, w, dtype=torch.float64) for n, w in ((M * G, E), (M, E), (M, W)))
        pads = {"padded": [2, 3], "one row padded away": [length, 0]}.get(piece, [0, 0])
        padding = torch.arange(length) < torch.tensor(pads)[:, None] if any(pads) else None
        cuts = {"packed": [3], "new documents": [0, 5]}.get(piece, [])
        documents = None
        if piece in ("packed", "new documents"):
            documents = label + sum((torch.arange(length) >= c).long() for c in cuts).expand(B, length)
            label = int(documents[0, -1])
        ctx, cursor = advance(cursor, B, length, documents=documents, padding=padding)
        cache = append(cache, k, v, ctx)
        o = attend(q, cache, ctx, window=window, sink_tokens=sink_tokens)
        cache = trim(cache, window, sink_tokens)
        for row in range(B):
            rows[row].append(o[row, pads[row] :])
            cuts = [] if ctx.reset is None else ctx.reset[row].nonzero()[:, 0].tolist()
            bounds = [pads[row], *cuts, length]
            for n, (start, stop) in enumerate(itertools.pairwise(bounds)):
                if n > 0:
                    texts[row].append([])
                texts[row][-1].append((q[row, start:stop], k[row, start:stop], v[row, start:stop]))
    alone = [torch.cat([one(pieces, window, sink_tokens) for pieces in row if sum(len(p[0]) for p in pieces)]) for row in texts]
    return [torch.cat(row) for row in rows], alone


def one(pieces: list[tuple[Tensor, ...]], window: int | None, sink_tokens: int) -> Tensor:
    q, k, v = (torch.cat(x)[None] for x in zip(*pieces, strict=True))
    ctx, _ = advance(None, 1, q.shape[1])
    return attend(q, append(None, k, v, ctx), ctx, window=window, sink_tokens=sink_tokens)[0]


@pytest.mark.parametrize(("window", "sink_tokens"), [(None, 0), (1, 0), (4, 0), (4, 2), (40, 1)])
def test_pieces_of_any_kind_follow_one_another(window: int | None, sink_tokens: int) -> None:
    for kinds in itertools.permutations(PIECES, 2):
        results, expected = read(("plain", *kinds, "plain"), window, sink_tokens)
        for a, b in zip(results, expected, strict=True):
            assert float((a - b).norm() / b.norm()) < 1e-12, kinds


def test_plain_caches_hold_keys_and_values_only() -> None:
    for window, sink_tokens, length in itertools.product((None, 1, 4), (0, 2), (1, 3, 9)):
        if window is None and sink_tokens:
            continue
        ctx, _ = advance(None, 1, length)
        cache = trim(append(None, torch.randn(1, length, M, E), torch.randn(1, length, M, W), ctx), window, sink_tokens)
        assert cache[2:] == (None, None)
        assert cache.keys.nbytes + cache.values.nbytes == cache_bytes(length, M, E, W, window=window, sink_tokens=sink_tokens)


def test_a_packed_cache_forgets_earlier_documents_and_padding() -> None:
    documents = torch.tensor([[0] * 6 + [1] * 3, [0] * 2 + [1] * 7])
    padding = torch.arange(9) < torch.tensor([0, 1])[:, None]
    ctx, _ = advance(None, B, 9, documents=documents, padding=padding)
    cache = trim(append(None, torch.randn(B, 9, M, E), torch.randn(B, 9, M, W), ctx))
    assert cache.documents is not None
    assert cache.documents.tolist() == [[-1] * 4 + [1] * 3, [1] * 7]
