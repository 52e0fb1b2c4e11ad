"""Next-token loss from hidden states without ever holding all logits: rows (tokens) in chunks, gradients in the same pass."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.dtypes import wide

CHUNK_ELEMENTS = 1 << 22  # logits held at a time, 16 MiB in float32


def logits_of(hidden: Tensor, weight: Tensor, softcap: float | None) -> Tensor:
    """hidden (..., d) times weight (vocab, d), with the optional cap c * tanh(x / c), in the wide dtype of the house."""
    return _capped(F.linear(hidden, weight), softcap)


def _capped(logits: Tensor, softcap: float | None) -> Tensor:
    logits = wide(logits)
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


class _Chunked(torch.autograd.Function):
    """(hidden (n, d), weight (vocab, d), labels (n,), softcap) -> the sum; hidden and weight of one dtype."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, softcap: float | None) -> Tensor:
        needs = hidden.requires_grad or weight.requires_grad
        d_hidden, d_weight = torch.zeros_like(hidden), torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
        losses = []
        with torch.autocast(hidden.device.type, enabled=False):
            for part, buffers in _parts(hidden, weight):
                loss, d_logits = _scored(hidden[part], weight, labels[part, None], softcap, buffers)
                losses.append(loss)
                if needs:
                    d_logits = d_logits.to(weight.dtype)
                    torch.mm(d_logits, weight, out=d_hidden[part])
                    if d_weight.dtype == weight.dtype:
                        d_weight.addmm_(d_logits.t(), hidden[part])
                    else:
                        d_weight += d_logits.t() @ hidden[part]
        ctx.save_for_backward(d_hidden, d_weight.to(weight.dtype))
        return torch.stack(losses).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * gradients[0], d_weight * gradients[0], None, None


def _parts(hidden: Tensor, weight: Tensor) -> Iterator[tuple[slice, tuple[Tensor, Tensor]]]:
    """The rows of each chunk, and room for its logits twice, which is the same every time: fresh memory costs a fault a page."""
    n, vocab = hidden.shape[0], weight.shape[0]
    rows = min(n, max(1, CHUNK_ELEMENTS // vocab))
    logits = hidden.new_empty(rows, vocab)
    chances = torch.empty_like(logits, dtype=torch.promote_types(logits.dtype, torch.float32))
    for start in range(0, n, rows):
        here = min(rows, n - start)
        yield slice(start, start + here), (logits[:here], chances[:here])


def _scored(hidden: Tensor, weight: Tensor, labels: Tensor, softcap: float | None, buffers: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The summed loss of a chunk and its gradient at the logits, softmax minus one-hot. labels (rows, 1).

    The largest logit's chance is never below 1 / vocab, so that it gives the normaliser without a second pass of exponentials.
    """
    torch.mm(hidden, weight.t(), out=buffers[0])
    logits = _capped(buffers[0], softcap)
    chances = torch.softmax(logits, -1, out=buffers[1])
    normaliser = logits.amax(-1, keepdim=True) - chances.amax(-1, keepdim=True).log()
    loss = (normaliser - logits.gather(1, labels)).sum()
    chances.scatter_(1, labels, chances.gather(1, labels) - 1)
    return loss, chances if softcap is None else chances.mul_(1 - (logits / softcap).square())


def summed_cross_entropy(
    hidden: Float[Tensor, "n d"], weight: Float[Tensor, "vocab d"], labels: Int[Tensor, "n"], softcap: float | None = None
) -> Float[Tensor, ""]:
    """The summed cross-entropy (nats) of labels under softmax(hidden weight^T); differentiable in hidden and weight."""
    if hidden.shape[0] == 0:
        return hidden.sum() * 0 + weight.sum() * 0
    if torch.is_autocast_enabled(hidden.device.type):  # one dtype inside: the casts are differentiated outside the function
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    return _Chunked.apply(hidden, weight, labels, softcap)


def cross_entropy_by_row(hidden: Tensor, weight: Tensor, labels: Tensor, softcap: float | None = None) -> Tensor:
    """The cross-entropy (nats) of each row, without gradients. hidden (n, d), weight (vocab, d), labels (n,) -> (n,)."""
    rows = max(1, CHUNK_ELEMENTS // weight.shape[0])
    with torch.no_grad():
        parts = zip(hidden.split(rows), labels.split(rows), strict=True)
        return torch.cat([F.cross_entropy(logits_of(h, weight, softcap), y, reduction="none") for h, y in parts])
