"""Scores inside chunks under a decay per key channel, exact for any decay.

A block of tokens that decays by at most 2^-MILD in every channel is factored at its middle: rows times 2^(G - G_mid), keys times
2^(G_mid - G), one product. Where chunks decay more, blocks (leaves) of fewer tokens are scored so and then joined in pairs: rows
of the right block carry the decay from its start, keys of the left one the decay to its end, and the lower left square of the
pair is one product (the secondary chunks of GLA, arXiv:2312.06635, made dyadic). Above the leaves decays <= 1 are only ever
multiplied. The gradient of a log decay is that of the sums G: what rows get less what keys get.
"""

import torch
from torch import Tensor

from kernels.delta.chunks import Buffers, Documents
from kernels.delta.scalar import FLOOR, triangle
from kernels.dtypes import LOG2E

MILD = 60.0  # a leaf decays by at most 2^-60: its factors, at most 2^30, keep their digits in float32


class Vector:
    """What `walk` needs, from rows (n, 2 c, k) = [q; a], m kinds of keys (n, m c, k) and log decays g (n, c, k).

    early: a reads the state before its own token's decay. Never does it read what its own token writes.
    """

    def __init__(self, rows: Tensor, keys: Tensor, g: Tensor, early: bool, docs: Documents | None, buffers: Buffers) -> None:
        n, c, k = g.shape
        self.rows, self.keys = rows.view(n, 2, c, k), keys.view(n, -1, c, k)
        self.early, self.docs, self.leaf = early, docs, _leaf(g)
        m = self.keys.shape[1]
        self.scores, read = buffers("scores", n, 2 * c, m * c), buffers("read", n, 2, c, k)
        self._factors(g)
        self.leaf_rows = torch.mul(self.rows, self.up, out=buffers("leaf_rows", n, 2, c, k))
        self.leaf_keys = torch.mul(self.keys, self.down, out=buffers("leaf_keys", n, m, c, k))
        written = buffers("writers", n, m, c, k)
        for base, carried in ((self.leaf_rows, read), (self.leaf_keys, written)):
            torch.mul(base.unflatten(2, (-1, self.leaf)), self.half, out=carried.unflatten(2, (-1, self.leaf)))
        self._score_leaves()
        self.keep = self._join(read, written)
        if docs is not None:
            self.scores.mul_(docs.same.repeat(1, 2, m))
            read *= docs.first[:, None]
            written *= docs.last[:, None]
            self.keep = self.keep * docs.whole
        self.read, self.writers = read.view(n, 2 * c, k), written.view(n, m * c, k)

    def _factors(self, g: Tensor) -> None:
        """`up` (n, 1 or 2, c, k) from the middle of each leaf, `down` (n, 1, c, k) to it, `half` (n, 1, blocks, 1, k) over half a leaf."""
        steps = (g * LOG2E).clamp_(min=FLOOR).unflatten(1, (-1, self.leaf))
        through = steps.cumsum(2)
        middle = through[:, :, -1:] / 2
        self.half = middle.exp2()[:, None]
        through -= middle
        self.down = through.neg().exp2_().flatten(1, 2)[:, None]
        up = through.exp2().flatten(1, 2)
        self.up = torch.stack([up, (through - steps).exp2_().flatten(1, 2)], 1) if self.early else up[:, None]

    def _score_leaves(self) -> None:
        c, size = self.rows.shape[2], self.leaf
        if size < c:
            self.scores.zero_()
            cross = _blocks(self.leaf_rows, size) @ _blocks(self.leaf_keys, size).mT * self._seen(size)
            _squares(self.scores, size).copy_(_spread(cross, self.rows.shape[0], size))
        else:
            torch.bmm(self.leaf_rows.flatten(1, 2), self.leaf_keys.flatten(1, 2).mT, out=self.scores)
            self.scores.mul_(self._seen(c))

    def _seen(self, size: int, *, decayed: bool = False) -> Tensor:
        """(2 size, m size): q sees its own token, a doesn't; decayed: only the scores that a decay acts on."""
        m, near = self.keys.shape[1], -2 if self.early else -1
        q, a = (triangle(size, i, self.keys.dtype, self.keys.device).repeat(1, m) for i in ((-1, near) if decayed else (0, -1)))
        return torch.cat([q, a])

    def _join(self, read: Tensor, written: Tensor) -> Tensor:
        """From leaves to chunks: the squares below the leaves, and `read`, `written` from blocks' edges to chunks'. Returns keep."""
        n, _, c, _ = self.rows.shape
        keep, size = self.half.square()[:, 0, :, 0], self.leaf  # (n, blocks, k)
        self.levels: list[tuple[Tensor, ...]] = []
        if size < c:  # from each token to the chunk's end
            self.rest = (self.down.unflatten(2, (-1, size)) * self.half).flatten(2, 3)
        while size < c:
            right, left = _half(read, size, 1), _half(written, size, 0)
            before, after = keep.unflatten(1, (-1, 2)).unbind(2)
            rows, keys = (_stacked(x.clone(memory_format=torch.contiguous_format)) for x in (right, left))  # both change below
            _corners(self.scores, size).copy_(_spread(rows @ keys.mT, n, size))
            self.levels.append((rows, keys, before, after))
            right *= before[:, None, :, None]
            left *= after[:, None, :, None]
            _half(self.rest, size, 0).mul_(after[:, None, :, None])
            keep, size = before * after, 2 * size
        return keep.mT  # (n, k, 1)

    def backward(self, d_read: Tensor, d_scores: Tensor, d_writers: Tensor, d_keep: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gradients of rows, keys and g from those of read, scores and writers, all overwritten, and of keep (n, k)."""
        n, m, c, k = self.keys.shape
        d_read, d_written = d_read.view(n, 2, c, k), d_writers.view(n, m, c, k)
        if self.docs is not None:
            d_scores.mul_(self.docs.same.repeat(1, 2, m))
            d_read *= self.docs.first[:, None]
            d_written *= self.docs.last[:, None]
        kinds = d_scores.unflatten(2, (m, c))
        own = kinds[:, :c].diagonal(0, 1, 3)[..., None].clone()  # (n, m, c, 1): q with its own token
        near = kinds[:, c:].diagonal(-1, 1, 3)[..., None].clone() if self.early else None  # (n, m, c - 1, 1): a with the one before
        d_scores.mul_(self._seen(c, decayed=True))
        d_rows, d_keys = self._leaves_back(d_scores, *self._join_back(d_scores, d_read))
        dg = self._gate(d_rows, d_keys, d_written, d_keep)
        d_rows *= self.up
        d_keys *= self.down
        d_keys.addcmul_(d_written, self.rest if self.levels else self.down * self.half[:, :, 0])
        self._add_undecayed(d_rows, d_keys, own, near)
        return d_rows.flatten(1, 2), d_keys.flatten(1, 2), dg

    def _gate(self, d_rows: Tensor, d_keys: Tensor, d_written: Tensor, d_keep: Tensor | None) -> Tensor:
        """From gradients of leaf_rows and leaf_keys by all that a decay acts on, and of writers."""
        q, a = torch.mul(self.leaf_rows, d_rows).unbind(1)
        sums = q - torch.mul(self.leaf_keys, d_keys).sum(1)
        if self.early:
            sums[:, :-1] += a[:, 1:]
        else:
            sums += a
        dg = sums.flip(1).cumsum(1).flip(1)
        written = (d_written * self.writers.view(d_written.shape)).sum(1)
        dg[:, 1:] += written.cumsum(1)[:, :-1]  # apart: what the last tokens write undecayed would drown the rest
        return dg if d_keep is None else dg + (d_keep * self.keep[:, :, 0])[:, None]

    def _add_undecayed(self, d_rows: Tensor, d_keys: Tensor, own: Tensor, near: Tensor | None) -> None:
        """The scores that no decay acts on: apart, so that their gradients don't round away those of strong decays."""
        for i in range(self.keys.shape[1]):
            d_rows[:, 0].addcmul_(own[:, i], self.keys[:, i])
            d_keys[:, i].addcmul_(own[:, i], self.rows[:, 0])
            if near is not None:
                d_rows[:, 1, 1:].addcmul_(near[:, i], self.keys[:, i, :-1])
                d_keys[:, i, :-1].addcmul_(near[:, i], self.rows[:, 1, 1:])

    def _join_back(self, d_scores: Tensor, d_read: Tensor) -> tuple[Tensor, Tensor]:
        """From chunks to leaves: gradients of the rows and keys carried to the leaves' edges, from the squares and `read`."""
        n, m, c, k = self.keys.shape
        d_written, size = d_read.new_zeros(n, m, c, k), c // 2
        for rows, keys, before, after in reversed(self.levels):
            cross = _gathered(_corners(d_scores, size))
            right, left = _half(d_read, size, 1), _half(d_written, size, 0)
            right *= before[:, None, :, None]
            right += _unstacked(cross @ keys, n, size)
            left *= after[:, None, :, None]
            left += _unstacked(cross.mT @ rows, n, size)
            size //= 2
        return d_read, d_written

    def _leaves_back(self, d_scores: Tensor, d_read: Tensor, d_written: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients (n, 2 or m, c, k) of leaf_rows and leaf_keys, without those of a token's score with itself."""
        n, _, c, _ = self.rows.shape
        size = self.leaf
        cross = d_scores if size == c else _gathered(_squares(d_scores, size))
        rows, keys = _blocks(self.leaf_rows, size), _blocks(self.leaf_keys, size)
        d_rows = (d_read.unflatten(2, (-1, size)) * self.half).flatten(2, 3)
        d_keys = (d_written.unflatten(2, (-1, size)) * self.half).flatten(2, 3)
        d_rows += _unstacked(cross @ keys, n, size).flatten(2, 3)
        d_keys += _unstacked(cross.mT @ rows, n, size).flatten(2, 3)
        return d_rows, d_keys


def _leaf(g: Tensor) -> int:
    """Tokens of the largest blocks that are mild in every channel of g (n, c, k); a meta tensor has no decays to look at."""
    c = leaf = g.shape[1]
    while leaf > 1 and not g.is_meta and bool(g.unflatten(1, (c // leaf, leaf)).sum(2).amin() * LOG2E < -MILD):
        leaf //= 2
    return leaf


def _half(x: Tensor, size: int, side: int) -> Tensor:
    """The left (0) or right (1) blocks of every pair: (n, kinds, c, k) -> a view (n, kinds, pairs, size, k)."""
    return x.unflatten(2, (-1, 2, size))[:, :, :, side]


def _stacked(x: Tensor) -> Tensor:
    """(n, kinds, blocks, size, k) -> (n blocks, kinds size, k)."""
    return x.transpose(1, 2).flatten(2, 3).flatten(0, 1)


def _blocks(x: Tensor, size: int) -> Tensor:
    """(n, kinds, c, k) -> (n blocks, kinds size, k)."""
    return _stacked(x.unflatten(2, (-1, size)))


def _unstacked(x: Tensor, n: int, size: int) -> Tensor:
    """(n blocks, kinds size, k) -> (n, kinds, blocks, size, k)."""
    return x.unflatten(0, (n, -1)).unflatten(2, (-1, size)).transpose(1, 2)


def _corners(scores: Tensor, size: int) -> Tensor:
    """The lower left squares of pairs of blocks, a view (n, 2, size, m, size, pairs) of scores (n, 2 c, m c)."""
    c = scores.shape[1] // 2
    blocks = scores.unflatten(2, (-1, c // (2 * size), 2, size)).unflatten(1, (2, c // (2 * size), 2, size))
    return blocks[:, :, :, 1, :, :, :, 0].diagonal(dim1=2, dim2=5)


def _squares(scores: Tensor, size: int) -> Tensor:
    """The blocks on the diagonal, a view (n, 2, size, m, size, blocks) of scores (n, 2 c, m c)."""
    c = scores.shape[1] // 2
    return scores.unflatten(2, (-1, c // size, size)).unflatten(1, (2, c // size, size)).diagonal(dim1=2, dim2=5)


def _spread(cross: Tensor, n: int, size: int) -> Tensor:
    """(n blocks, 2 size, m size) in the order of `_corners`."""
    return cross.unflatten(0, (n, -1)).unflatten(3, (-1, size)).unflatten(2, (2, size)).permute(0, 2, 3, 4, 5, 1)


def _gathered(squares: Tensor) -> Tensor:
    """What `_corners` gives as (n blocks, 2 size, m size)."""
    return squares.permute(0, 5, 1, 2, 3, 4).flatten(4, 5).flatten(2, 3).flatten(0, 1)


def vector_flops(c: int, m: int, k: int) -> int:
    """FLOPs of one system's scores, where a chunk decays mildly."""
    return 2 * (2 * c) * (m * c) * k
