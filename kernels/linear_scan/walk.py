"""The recurrence itself, h_t = a_t h_{t-1} + x_t, walked in place in either direction of time: what both scans share."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def walk(decays: Iterable[Tensor], inputs: Iterable[Tensor], h: Tensor) -> Tensor:
    """Turn each input, in place, into the state after it; h is the state before. Returns the last state."""
    for a, x in zip(decays, inputs, strict=True):
        h = x.addcmul_(a, h)
    return h


def walk_chunks(decays: Sequence[Tensor], inputs: Sequence[Tensor], h: Tensor, order: int) -> None:
    """`walk` for chunks side by side: decays, inputs hold one (b, chunks, c) a step; order -1 if the last chunk comes first.

    Each chunk is walked from 0, then given the state before it times its running product of decays, which overwrites `decays`.
    """
    for i in range(1, len(inputs)):
        inputs[i].addcmul_(decays[i], inputs[i - 1])
        decays[i].mul_(decays[i - 1])
    before = [h]
    ends = list(zip(inputs[-1].unbind(1), decays[-1].unbind(1), strict=True))[::order]
    for last, decay in ends[:-1]:
        before.append(torch.addcmul(last, decay, before[-1]))
    start = torch.stack(before[::order], 1)
    for x, a in zip(inputs, decays, strict=True):
        x.addcmul_(a, start)


def scan(a: Tensor, x: Tensor, start: Tensor, chunk: int) -> Tensor:
    """All states of decays a and inputs x (b, t, c) from start (b, c). A piece of one chunk needs no products of decays."""
    if chunk >= x.shape[1]:
        h = x.clone()
        walk(a.unbind(1), h.unbind(1), start)
        return h
    decays, h = in_chunks(a, chunk), in_chunks(x, chunk)
    walk_chunks(decays.unbind(2), h.unbind(2), start, 1)
    return h.flatten(1, 2)[:, : x.shape[1]]


def scan_back(a: Tensor, dh: Tensor, chunk: int) -> Tensor:
    """g_t = dh_t + a_{t+1} g_{t+1}: the gradient of each input of `scan`."""
    if chunk >= dh.shape[1]:
        g = dh.clone()
        walk(a.unbind(1)[:0:-1], g.unbind(1)[-2::-1], g[:, -1])
        return g
    decays, g = in_chunks(a[:, 1:], chunk, dh.shape[1]), in_chunks(dh, chunk)
    walk_chunks(decays.unbind(2)[::-1], g.unbind(2)[::-1], torch.zeros_like(dh[:, 0]), -1)
    return g.flatten(1, 2)[:, : dh.shape[1]]


def in_chunks(x: Tensor, chunk: int, length: int = 0) -> Tensor:
    """A copy of x (b, t, c), zeros after it up to whole chunks of max(t, length), as (b, chunks, chunk, c)."""
    b, t, c = x.shape
    rows = -(-max(t, length) // chunk)
    out = x.new_zeros(b, rows * chunk, c)
    out[:, :t] = x
    return out.unflatten(1, (rows, chunk))
