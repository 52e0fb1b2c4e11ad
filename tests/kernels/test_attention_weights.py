"""Dense weights mix the values into what the definition gives."""

from typing import Any

import pytest
import torch

from kernels.attention import reference
from kernels.attention.visible import sight
from kernels.attention.weights import attention_weights, differential_weights

B, T, S, M, G, E, W = 2, 5, 11, 3, 2, 4, 7  # pairwise different
POSITIONS = torch.stack([torch.arange(S) % 6, (torch.arange(S) - 2).clamp(min=0)])
DOCUMENTS = torch.stack([torch.arange(S) // 6, torch.where(torch.arange(S) < 2, -1, 0)])
PACKED = {"k_positions": POSITIONS, "q_documents": DOCUMENTS[:, S - T :], "k_documents": DOCUMENTS}
NOTHING: dict[str, Any] = dict.fromkeys(("q_positions", "k_positions", "q_documents", "k_documents", "window")) | {"sink_tokens": 0}


@pytest.mark.parametrize("mask", [{}, {"window": 3}, {"window": 3, "sink_tokens": 2}, PACKED, PACKED | {"window": 2, "sink_tokens": 1}])
@pytest.mark.parametrize("options", [{}, {"softcap": 2.0}, {"sink_logits": torch.linspace(-1, 1, M * G)}, {"scale": 0.7}])
def test_attention(mask: dict[str, Any], options: dict[str, Any]) -> None:
    q, k, v = (torch.randn(shape, dtype=torch.float64) for shape in ((B, T, M * G, E), (B, S, M, E), (B, S, M, W)))
    view = sight(T, S, **NOTHING | mask)
    rows = torch.tensor([4, 0, 3])
    weights = attention_weights(q, k, view, rows, **options)
    o = reference.attention(q, k, v, view, **{"softcap": None, "sink_logits": None, "scale": None} | options)[:, rows]
    mixed = torch.einsum("bhns,bshw->bnhw", weights, v.repeat_interleave(G, 2))
    torch.testing.assert_close(mixed, o, rtol=1e-6, atol=1e-7)  # sink logits are float32


@pytest.mark.parametrize("sets", [1, 2])
def test_differential(sets: int) -> None:
    q, k = torch.randn(B, T, 2, M * G, E, dtype=torch.float64), torch.randn(B, S, sets, M, E, dtype=torch.float64)
    v, mix = torch.randn(B, S, M, W, dtype=torch.float64), torch.rand(B, T, M * G, dtype=torch.float64)
    view, rows = sight(T, S, **NOTHING | {"window": 4}), torch.tensor([1, 4])
    weights = differential_weights(q, k, mix, view, rows)
    o = reference.differential(q, k, v, mix, view, scale=None)[:, rows]
    torch.testing.assert_close(torch.einsum("bhns,bshw->bnhw", weights, v.repeat_interleave(G, 2)), o)
    torch.testing.assert_close(weights.sum(-1), 1 - mix[:, rows].transpose(1, 2))
