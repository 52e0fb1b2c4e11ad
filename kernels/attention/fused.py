"""Torch's fused attention on a GPU: ahead of our own kernels wherever it can serve. The chunked back end takes it by itself."""

from torch import Tensor

from kernels.attention import tiles
from kernels.attention.chunked import attention
from kernels.attention.visible import Sight

__all__ = ["attention", "refuses_attention"]


def refuses_attention(
    q: Tensor, k: Tensor, v: Tensor, view: Sight, *, softcap: float | None, sink_logits: Tensor | None, scale: float | None
) -> str | None:
    """Why this call can't be served here; None if it can."""
    del k, scale
    options = {"softcap": softcap is not None, "sink_logits": sink_logits is not None, "same_width": q.shape[-1] == v.shape[-1]}
    if view.plain and tiles.fused(view.t, view.s, view.window, **options):
        return None
    return "torch's fused attention knows the whole causal square and one query of everything, of heads of one width"
