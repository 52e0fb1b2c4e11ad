"""Differential attention against Hugging Face's DiffLlama, and its forms against formulas written out in another way."""

import math
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers.models.diffllama.modeling_diffllama import DiffLlamaAttention, DiffLlamaRotaryEmbedding

from blocks.context import advance
from blocks.differential import Block, Config
from blocks.rope import Rope
from zoo.check.contract import check_block

D, LENGTH, LAYER = 24, 19, 2


def causal(length: int) -> Tensor:
    return torch.full((length, length), float("-inf"), dtype=torch.float64).triu(1)


@pytest.mark.parametrize("kv_heads", [2, 4])
def test_differential_is_diffllama(kv_heads: int) -> None:
    config = transformers.DiffLlamaConfig(
        hidden_size=D,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        head_dim=6,
        num_hidden_layers=4,
        rope_parameters={"rope_theta": 300.0, "rope_type": "default"},
        attn_implementation="eager",
    )
    hf = DiffLlamaAttention(config, LAYER)
    heads: Any = {"n_heads": 2, "n_kv_heads": kv_heads // 2, "head_dim": 6, "pairing": "halves"}
    block = Config(norm_affine=False, norm_eps=config.rms_norm_eps, rope=Rope(base=300.0), **heads).build(D, LAYER, 4)
    names = ["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"]
    weights = dict(hf.named_parameters())
    parts = [weights[f"{p}_proj.weight"] for p in "qkv"]
    block.load_state_dict({n: weights[n] for n in names} | {"qkv.weight": torch.cat(parts), "out.weight": weights["o_proj.weight"]})

    x = torch.randn(2, LENGTH, D)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    positions = torch.arange(LENGTH)[None]
    y, _ = hf(a, DiffLlamaRotaryEmbedding(config)(x, positions), causal(LENGTH).float()[None, None])
    z, _ = block(b, None, advance(None, 2, LENGTH)[0])
    weight = torch.randn_like(y)
    truth = torch.autograd.grad((y * weight).sum(), [a, *(weights[n] for n in names), *parts, weights["o_proj.weight"]])
    mine = dict(block.named_parameters())
    grads = torch.autograd.grad((z * weight).sum(), [b, *(mine[n] for n in names), mine["qkv.weight"], mine["out.weight"]])
    for value, expected in zip((z, *grads), (y, *truth[:5], torch.cat(truth[5:8]), truth[8]), strict=True):
        assert float((value - expected).abs().max().detach()) < 1e-5 * float(expected.abs().max().detach())


def softmaxes(q: Tensor, k: Tensor) -> Tensor:
    """q, k (b, h, t, e) -> (b, h, t, t)"""
    return (q @ k.mT / math.sqrt(q.shape[-1]) + causal(q.shape[2])).softmax(-1)


def heads_of(block: Block, x: Tensor) -> list[Tensor]:
    """q, k, v (b, heads, t, e) in the order of their projections."""
    return [y.unflatten(2, (-1, 6)).transpose(1, 2) for y in (x @ block.qkv.weight.T).split(block.sizes, -1)]


@pytest.mark.parametrize("layer", [0, 3])
def test_the_paper_with_adjacent_pairs_and_an_affine_norm(layer: int) -> None:
    block: Any = Config(n_heads=4, n_kv_heads=2, head_dim=6, rope=None).build(D, layer, 4).double()
    torch.nn.init.normal_(block.norm.weight)
    x = torch.randn(2, LENGTH, D, dtype=torch.float64)
    q, k, v = heads_of(block, x)
    init = {0: 0.2, 3: 0.5560582}[layer]
    share = (block.lambda_q1 @ block.lambda_k1).exp() - (block.lambda_q2 @ block.lambda_k2).exp() + init
    out = []
    for n in range(4):
        j = n // 2
        maps = softmaxes(q[:, [2 * n, 2 * n + 1]], k[:, [2 * j, 2 * j + 1]])
        o = (maps[:, 0] - share * maps[:, 1]) @ torch.cat([v[:, 2 * j], v[:, 2 * j + 1]], -1)
        out.append(o / (o.square().mean(-1, keepdim=True) + 1e-5).sqrt() * block.norm.weight * (1 - init))
    right = torch.cat(out, -1) @ block.out.weight.T
    assert float((block(x, None, advance(None, 2, LENGTH)[0])[0] - right).abs().max().detach()) < 1e-6  # init has seven digits


@pytest.mark.parametrize("pairing", ["adjacent", "halves"])
def test_the_second_version_shares_keys_and_mixes_by_token(pairing: str) -> None:
    block: Any = Config(n_heads=4, n_kv_heads=2, head_dim=6, rope=None, mix="sigmoid", pairing=pairing).build(D).double()
    x = torch.randn(2, LENGTH, D, dtype=torch.float64)
    q, k, v = heads_of(block, x)
    share = torch.sigmoid(x @ block.mix.weight.T)
    out = []
    for n in range(4):
        pair = [2 * n, 2 * n + 1] if pairing == "adjacent" else [n, n + 4]
        first, second = (softmaxes(q[:, [i]], k[:, [n // 2]])[:, 0] @ v[:, n // 2] for i in pair)
        out.append(first - share[..., n : n + 1] * second)
    right = torch.cat(out, -1) @ block.out.weight.T
    assert float((block(x, None, advance(None, 2, LENGTH)[0])[0] - right).abs().max().detach()) < 1e-12


@pytest.mark.parametrize(
    "options",
    [
        {"n_heads": 4, "n_kv_heads": 2, "window": 7, "sink_tokens": 1, "pairing": "halves", "norm_affine": False},
        {"n_heads": 4, "n_kv_heads": 2, "mix": "sigmoid"},
    ],
)
def test_the_contract_holds_with_options(options: dict[str, Any]) -> None:
    check_block(Config(**options), d_model=32)
