"""Next-token loss from hidden states without ever holding all logits: rows (tokens) in chunks, gradients in the same pass."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

CHUNK_ELEMENTS = 1 << 22  # logits held at a time, 16 MiB in float32


def logits_of(hidden: Tensor, weight: Tensor, softcap: float | None) -> Tensor:
    """hidden (..., d) times weight (vocab, d), with the optional cap c * tanh(x / c), in the wide dtype of the house."""
    logits = F.linear(hidden, weight)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, softcap: float | None) -> Tensor:
        rows = max(1, CHUNK_ELEMENTS // weight.shape[0])
        needs = hidden.requires_grad or weight.requires_grad
        d_hidden, d_weight = torch.zeros_like(hidden), torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
        losses = []
        for start in range(0, hidden.shape[0], rows):
            part = slice(start, start + rows)
            with torch.enable_grad():
                h, w = hidden[part].detach().requires_grad_(), weight.detach().requires_grad_()
                loss = F.cross_entropy(logits_of(h, w, softcap), labels[part], reduction="none")
                if needs:
                    d_hidden[part], gradient = torch.autograd.grad(loss.sum(), (h, w))
                    d_weight += gradient
            losses.append(loss.detach())
        ctx.save_for_backward(d_hidden, d_weight.to(weight.dtype))
        return torch.cat(losses).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * gradients[0], d_weight * gradients[0], None, None


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
