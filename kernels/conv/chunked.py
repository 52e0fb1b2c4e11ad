"""The whole piece at once, one shifted multiply-add a tap, tile by tile in buffers that stay in cache, with our own backward.

A tile is some rows of the batch times some tokens. Its inputs with the width - 1 before them are copied into one buffer, at
least in float32, so that a tap is a slice of it; the backward pass recomputes what came before the activation, and walks the
tokens from the last tile to the first, because a tile's gradient reaches width - 1 inputs back into the tile before it.
torch.compile gets the same sum in plain steps, which it fuses by itself.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.conv.history import behind
from kernels.dtypes import wide

TILE = 1 << 17  # numbers in a tile, 512 KiB in float32


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    state: Tensor | None = None,
    *,
    activation: str = "none",
    reset: Tensor | None = None,
    pads: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    width, t = weight.shape[1], x.shape[1]
    past, x, run, after = behind(x, state, width - 1, reset=reset, pads=pads)
    keep = None if run is None else torch.stack([run[:, j : j + t] == run[:, width - 1 :] for j in range(width)])[..., None]
    if torch.compiler.is_compiling():
        return _steps(Piece(x, past, weight, bias, keep), activation == "silu"), after
    return _Conv.apply(x, past, weight, bias, keep, activation == "silu"), after


class Piece(NamedTuple):
    """What a convolution reads."""

    x: Tensor  # (b, t, c)
    past: Tensor | None  # (b, width - 1, c), the inputs before x; None = zeros
    weight: Tensor  # (c, width)
    bias: Tensor | None  # (c,)
    keep: Tensor | None  # (width, b, t, 1) bool: a tap's input is of its reader's document; None = all are

    def taps(self) -> list[Tensor]:
        """(c,) each, the last for the current token."""
        return list(wide(self.weight).to(wide(self.x[:0]).dtype).t().contiguous().unbind(0))

    def tiles(self, backward: bool = False) -> Iterator["Tile"]:
        """All tiles, filled in; their buffers are the same ones every time."""
        (b, t, c), before = self.x.shape, self.weight.shape[1] - 1
        n = min(t, max(1, TILE // c, before))
        rows = min(b, max(1, TILE // (n * c)))
        buffers = [wide(self.x[:0]).new_empty(rows, length, c) for length in (before + n, n, n)]
        starts = range(0, t, n)
        for i in range(0, b, rows):
            for start in reversed(starts) if backward else starts:
                yield self._tile(slice(i, min(i + rows, b)), slice(start, min(start + n, t)), buffers)

    def _tile(self, rows: slice, tokens: slice, buffers: list[Tensor]) -> "Tile":
        h, n, before = rows.stop - rows.start, tokens.stop - tokens.start, self.weight.shape[1] - 1
        full = buffers[0][:h, : before + n]
        full[:, before:] = self.x[rows, tokens]
        if tokens.start > 0:
            full[:, :before] = self.x[rows, tokens.start - before : tokens.start]
        elif self.past is None:
            full[:, :before] = 0
        else:
            full[:, :before] = self.past[rows]
        shifts = [full[:, j : j + n] for j in range(before + 1)]
        keep = None if self.keep is None else list(self.keep[:, rows, tokens].unbind(0))
        return Tile(rows, tokens, full, shifts, buffers[1][:h, :n], buffers[2][:h, :n], keep)


class Tile(NamedTuple):
    """Some tokens of some rows, and buffers to work in."""

    rows: slice
    tokens: slice
    full: Tensor  # (rows, width - 1 + tokens, c): the inputs and the width - 1 before them
    shifts: list[Tensor]  # (rows, tokens, c) each: the slice of `full` that each tap reads
    pre: Tensor  # (rows, tokens, c)
    spare: Tensor  # (rows, tokens, c)
    keep: list[Tensor] | None  # (rows, tokens, 1) each, see Piece

    def kept(self, x: Tensor, j: int) -> Tensor:
        """x (rows, tokens, c) where the reader's document is that of tap j's input, else 0; may lie in `spare`."""
        return x if self.keep is None else torch.mul(x, self.keep[j], out=self.spare)

    def convolve(self, taps: list[Tensor], bias: Tensor | None, out: Tensor) -> Tensor:
        """Write the output before its activation into out, which is returned."""
        last = len(taps) - 1
        if bias is None:
            torch.mul(self.shifts[last], taps[last], out=out)
        else:
            torch.addcmul(bias.to(out.dtype), self.shifts[last], taps[last], out=out)
        for j in range(last):
            out.addcmul_(self.kept(self.shifts[j], j), taps[j])
        return out


def _steps(piece: Piece, silu: bool) -> Tensor:
    """y in plain steps, for a compiler."""
    x, (b, t, c), taps = piece.x, piece.x.shape, piece.taps()
    past = x.new_zeros(b, len(taps) - 1, c) if piece.past is None else piece.past
    full = wide(torch.cat([past, x], 1))
    y = torch.zeros_like(taps[0]) if piece.bias is None else piece.bias.to(taps[0].dtype)
    for j, tap in enumerate(taps):
        seen = full[:, j : j + t]
        y = y + (seen if piece.keep is None else seen * piece.keep[j]) * tap
    return (F.silu(y) if silu else y).to(x.dtype)


class _Conv(torch.autograd.Function):
    """(x, past, weight, bias, keep, silu) -> y (b, t, c)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, past: Tensor | None, weight: Tensor, bias: Tensor | None, keep: Tensor | None, silu: bool) -> Tensor:
        piece = Piece(x, past, weight, bias, keep)
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        with torch.autocast(x.device.type, enabled=False):
            taps = piece.taps()
            for tile in piece.tiles():
                here = y[tile.rows, tile.tokens]
                out = tile.convolve(taps, bias, here if y.dtype == taps[0].dtype else tile.pre)
                if silu:
                    F.silu(out, inplace=True)
                if out is not here:
                    here.copy_(out)
        ctx.save_for_backward(*piece)
        ctx.silu = silu
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, past, weight, bias, _ = piece = Piece(*ctx.saved_tensors)
        dx, width = torch.empty(x.shape, dtype=x.dtype, device=x.device), weight.shape[1]
        with torch.autocast(dy.device.type, enabled=False):
            taps = piece.taps()
            carry = taps[0].new_zeros(x.shape[0], width - 1, x.shape[2])  # the gradient of the inputs before the last tile done
            dtaps = [torch.zeros_like(tap) for tap in (*taps, taps[0])]  # and that of the bias
            for tile in piece.tiles(backward=True):
                g = wide(dy[tile.rows, tile.tokens])
                if ctx.silu:
                    torch.ops.aten.silu_backward.grad_input(g, tile.convolve(taps, bias, tile.pre), grad_input=tile.pre)
                    g = tile.pre
                _filter_gradient(tile, g, dtaps)
                dx[tile.rows, tile.tokens] = _input_gradient(tile, g, taps, carry[tile.rows])
        dpast = None if past is None else carry.to(past.dtype)
        dbias = None if bias is None else dtaps[width].to(bias.dtype)
        return dx, dpast, torch.stack(dtaps[:width], 1).to(weight.dtype), dbias, None, None


def _filter_gradient(tile: Tile, g: Tensor, dtaps: list[Tensor]) -> None:
    """Add what the tile's outputs, whose gradient is g, give to that of each tap and of the bias."""
    for j, seen in enumerate(tile.shifts):
        dtaps[j] += torch.mul(tile.kept(g, j), seen, out=tile.spare).sum((0, 1))
    dtaps[-1] += g.sum((0, 1))


def _input_gradient(tile: Tile, g: Tensor, taps: list[Tensor], carry: Tensor) -> Tensor:
    """The gradient of the tile's inputs, complete; `carry` goes over from the inputs before the next tile to those before this one."""
    d, n, last = tile.full, g.shape[1], len(taps) - 1
    torch.mul(g, taps[last], out=tile.shifts[last])
    d[:, :last] = 0
    d[:, n:] += carry
    for j in range(last):
        tile.shifts[j].addcmul_(tile.kept(g, j), taps[j])
    carry.copy_(d[:, :last])
    return tile.shifts[last]
