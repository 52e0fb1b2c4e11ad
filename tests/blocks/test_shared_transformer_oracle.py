"""The shared transformer against its equations written out, its uses, its options and its errors."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.context import advance
from blocks.errors import ConfigError
from blocks.rope import Rope
from blocks.shared_transformer import Block, Config
from zoo.check.contract import CHECKS, check_block

D, HEADS, KV, E, HIDDEN, RANK, LENGTH = 12, 4, 2, 6, 10, 3, 9
SIZES: dict[str, Any] = {"n_heads": HEADS, "n_kv_heads": KV, "head_dim": E, "hidden": HIDDEN, "adapter_rank": RANK, "norm_eps": 1e-3}


def block(**options: Any) -> Block:
    """With weights that hide nothing."""
    torch.manual_seed(0)
    built = Config(**SIZES, **options).build(D).double()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return built


def normed(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * weight


def written_out(b: Block, x: Tensor, e: Tensor, use: int) -> Tensor:
    """One row (t, d), token by token and head by head."""
    own: Any = b.own[use]
    n = normed(torch.cat([x, e], -1), b.norm.weight)
    qkv = n @ b.qkv.weight.T
    qkv = qkv + torch.cat([n @ a.down.weight.T @ a.up.weight.T for a in own.qkv], -1) if len(own.qkv) else qkv
    q, k, v = qkv[:, : HEADS * E], qkv[:, HEADS * E : (HEADS + KV) * E], qkv[:, (HEADS + KV) * E :]
    rows = []
    for t in range(x.shape[0]):
        heads = []
        for h in range(HEADS):
            of_q, of_k = slice(h * E, (h + 1) * E), slice(h // (HEADS // KV) * E, (h // (HEADS // KV) + 1) * E)
            scores = k[: t + 1, of_k] @ q[t, of_q] / math.sqrt(E / 2)
            heads.append(scores.softmax(0) @ v[: t + 1, of_k])
        rows.append(torch.cat(heads))
    a = normed(torch.stack(rows) @ b.out.weight.T, b.mlp_norm.weight)
    gate_up = F.linear(a, b.gate_up.weight, b.gate_up.bias)
    gate_up = gate_up + a @ own.gate_up[0].down.weight.T @ own.gate_up[0].up.weight.T if len(own.gate_up) else gate_up
    return F.linear(F.gelu(gate_up[:, :HIDDEN]) * gate_up[:, HIDDEN:], b.down.weight, b.down.bias) @ own.linear.weight.T


@pytest.mark.parametrize("options", [{}, {"adapt": "mlp", "bias": True}, {"adapt": "all"}], ids=str)
def test_each_use_is_its_equations(options: dict[str, Any]) -> None:
    b = block(uses=2, **options)
    x, e = torch.randn(2, LENGTH, D).double(), torch.randn(2, LENGTH, D).double()
    ctx, _ = advance(None, 2, LENGTH)
    for use in range(2):
        y, _ = b(x, None, replace(ctx, embedded=e, use=use))
        expected = torch.stack([written_out(b, row, embedded, use) for row, embedded in zip(x, e, strict=True)])
        torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    alone, _ = b(x, None, ctx)
    torch.testing.assert_close(alone, torch.stack([written_out(b, row, row, 0) for row in x]), rtol=1e-10, atol=1e-10)


def test_adapters_begin_without_effect() -> None:
    torch.manual_seed(0)
    plain, x = Config(**SIZES, uses=2).build(D), torch.randn(1, LENGTH, D)
    adapted = Config(**SIZES, uses=2, adapt="all").build(D)
    missing = adapted.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert len(missing) == 2 * (3 + 1) * 2
    ctx, _ = advance(None, 1, LENGTH)
    for use in range(2):
        assert torch.equal(adapted(x, None, replace(ctx, use=use))[0], plain(x, None, replace(ctx, use=use))[0])


@pytest.mark.parametrize("options", [{"adapt": "mlp", "bias": True}, {"adapt": "all", "rope": Rope(), "uses": 3, "scale": 0.3}], ids=str)
def test_the_contract_holds_for_its_options(options: dict[str, Any]) -> None:
    assert len(check_block(Config(**SIZES, **options), D)) == len(CHECKS)


def test_sizes_that_are_left_out() -> None:
    resolved = Config(n_heads=4).resolved(D)
    assert (resolved.n_kv_heads, resolved.head_dim, resolved.hidden, resolved.uses) == (4, 2 * D // 4, 4 * D, 1)
    assert resolved.scale == pytest.approx((2 * D / 4 / 2) ** -0.5, rel=1e-15)
    assert resolved.cost(D, 7) == Config(n_heads=4).cost(D, 7)


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"n_heads": 0}, "n_heads"),
        ({"n_heads": 5}, "n_heads"),
        ({"n_kv_heads": 3}, "n_kv_heads"),
        ({"head_dim": 0}, "head_dim"),
        ({"hidden": 0}, "hidden"),
        ({"activation": "tanh"}, "activation"),
        ({"norm_eps": 0.0}, "norm_eps"),
        ({"adapt": "qkv"}, "adapt"),
        ({"adapter_rank": 0}, "adapter_rank"),
        ({"uses": 0}, "uses"),
        ({"head_dim": 4, "rope": Rope(partial=2.0)}, "rope"),
    ],
    ids=str,
)
def test_wrong_sizes_are_named(options: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**options).check(D)
    assert caught.value.place.split(".")[0] == place


def test_the_pattern_says_how_often() -> None:
    assert Config().shared(3).uses == Config(uses=3).shared(3).uses == 3
    with pytest.raises(ConfigError, match="the pattern uses it 3 times"):
        Config(uses=2).shared(3)
