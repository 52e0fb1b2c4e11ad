"""Meta attention against a dense masked softmax over all tokens, with random meta tokens, documents and padding."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from blocks.context import META, TEXT, Context, advance
from blocks.meta_attention import Config
from blocks.rope import Rope, rotate

B, T, D, H, E = 3, 26, 12, 2, 5


def dense(block: Any, x: Tensor, ctx: Context, kinds: Tensor, rope: Rope | None) -> Tensor:
    """Every pair of tokens scored, all but (meta, earlier meta of the document) masked; rows that see nothing are 0."""
    q, k, v = (x @ block.qkv.weight.T).unflatten(2, (3, H, E)).unbind(2)
    if rope is not None:
        q, k = rotate(q, ctx.positions, rope), rotate(k, ctx.positions, rope)
    documents = torch.zeros(B, T, dtype=torch.int64) if ctx.documents is None else ctx.documents
    meta = (kinds == META) & (documents >= 0)
    visible = meta[:, :, None] & meta[:, None] & (documents[:, :, None] == documents[:, None]) & torch.ones(T, T, dtype=torch.bool).tril()
    scores = torch.einsum("bthe,bshe->bhts", q, k) / math.sqrt(E)
    weights = scores.exp() * visible[:, None]
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-300)
    return torch.einsum("bhts,bshe->bthe", weights, v).flatten(2) @ block.out.weight.T


@pytest.mark.parametrize("rope", [None, Rope(base=100.0)])
@pytest.mark.parametrize("mode", ["plain", "packed", "padded"])
@pytest.mark.parametrize("sizes", [[T], [9, 1, 16], [1] * T])
def test_meta_attention_is_a_dense_mask(rope: Rope | None, mode: str, sizes: list[int]) -> None:
    block: Any = Config(n_heads=H, head_dim=E, rope=rope).build(D).double()
    kinds = torch.where(torch.rand(B, T) < 0.4, META, TEXT)
    kinds[2, :] = TEXT  # a row without any
    documents = torch.tensor([0] * 7 + [1] * 8 + [2] * 11).expand(B, T) if mode == "packed" else None
    padding = torch.arange(T) < torch.tensor([0, 5, 2])[:, None] if mode == "padded" else None
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    ctx, _ = advance(None, B, T, documents=documents, padding=padding, kinds=kinds)
    right = dense(block, x, ctx, kinds, rope)

    state = cursor = None
    outputs = []
    for piece in torch.arange(T).split(sizes):
        cut = slice(int(piece[0]), int(piece[-1]) + 1)
        options = {"documents": documents, "padding": padding, "kinds": kinds}
        cut_ctx, cursor = advance(cursor, B, len(piece), **{k: None if v is None else v[:, cut] for k, v in options.items()})
        y, state = block(x[:, cut], state, cut_ctx)
        outputs.append(y)
    y = torch.cat(outputs, 1)
    assert float((y - right).abs().max().detach()) < 1e-12
    assert float(y[kinds != META].abs().max().detach()) == 0
    weight = torch.randn_like(y)
    wanted = [x, *block.parameters()]
    for a, b in zip(torch.autograd.grad((y * weight).sum(), wanted), torch.autograd.grad((right * weight).sum(), wanted), strict=True):
        assert float((a - b).abs().max()) < 1e-11


def test_text_without_kinds_passes_and_costs_nothing() -> None:
    config = Config(n_heads=H, head_dim=E)
    block = config.build(D)
    y, state = block(torch.randn(1, 4, D), None, advance(None, 1, 4)[0])
    assert y.abs().max() == 0
    assert state.cache is None
    assert config.cost(D, 1000).flops == 0
