"""Linear attention against fla's naive forms and against attention with the kernel that the feature map stands for."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.context import advance
from blocks.errors import ConfigError
from blocks.linear_attention import Block, Config, taylor
from blocks.rope import Rope
from tests.blocks.mixers import check_same
from tests.oracle import error, fla, moved
from zoo.check.contract import check_block

D, HEADS, LENGTH, BATCH = 24, 3, 21, 2
CASES: dict[str, Any] = {
    "elu, sum": Config(n_heads=HEADS, feature_dim=5, eps=1e-10),
    "elu, rms": Config(n_heads=HEADS, feature_dim=5, normalise="rms"),
    "identity, none": Config(n_heads=HEADS, feature="identity", normalise="none", rope=Rope()),
    "taylor, sum": Config(n_heads=HEADS, feature="taylor", feature_dim=5, conv=4),
}


def reference(block: Block, x: Tensor) -> Tensor:
    """The layer, written plainly around fla's naive forms, which scale q by e^-0.5 themselves."""
    config = block.config
    mixed = x @ block.in_proj.weight.T
    if block.conv is not None:
        padded = F.pad(mixed.transpose(1, 2), (config.conv - 1, 0))
        mixed = F.silu(F.conv1d(padded, block.conv.weight[:, None], groups=mixed.shape[-1])).transpose(1, 2)
    q, k, v = (i.reshape(BATCH, LENGTH, HEADS, -1) for i in mixed.split(block.sizes, -1))
    if config.rope is not None:
        q, k = turned(q), turned(k)
    if config.feature == "taylor":
        o = fla("based/naive.py").naive_parallel_based(*(i.transpose(1, 2) for i in (q, k, v))).transpose(1, 2)
    else:
        phi = (lambda x: torch.where(x > 0, x + 1, x.clamp(max=0).exp())) if config.feature == "elu" else (lambda x: x)
        o, _ = fla("linear_attn/naive.py").naive_recurrent_linear_attn(phi(q), phi(k), v, normalize=config.normalise == "sum")
    if block.norm is not None:
        o = o * (o.square().mean(-1, keepdim=True) + config.eps).rsqrt() * block.norm.weight
    return o.flatten(2) @ block.out_proj.weight.T


def turned(x: Tensor) -> Tensor:
    """RoPE as complex numbers. x (b, t, h, e)."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[1])[:, None] * 10000.0 ** (-torch.arange(half) / half)
    z = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)[:, None]
    return torch.cat([z.real, z.imag], -1)


@pytest.mark.parametrize("backend_name", ["reference", "chunked"])
@pytest.mark.parametrize("name", CASES)
def test_the_layer_around_flas_forms(name: str, backend_name: str) -> None:
    block = moved(Block(CASES[name], D, 0, 1), 0.1)
    check_same(lambda x: reference(block, x), block, torch.randn(BATCH, LENGTH, D), backend_name)


def test_the_taylor_map_is_exact() -> None:
    q, k = torch.randn(2, 7, 16, dtype=torch.float64)
    s = q @ k.T / 4
    assert taylor(q).shape == (7, 153)
    torch.testing.assert_close(taylor(q) @ taylor(k).T, 1 + s + s * s / 2)


def test_the_sum_survives_bfloat16() -> None:
    """A long constant text under autocast: the mean of equal values stays what it is, because the sums are wide:
    what is left is float32's rounding of as many additions."""
    block, length = Config(n_heads=2).build(16), 2000
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        x = torch.ones(1, length, 16)
        y, state = block(x, None, advance(None, 1, length)[0])
        _, first = block(x[:, :1], None, advance(None, 1, 1)[0])
    assert error(y, y[:, :1].expand_as(y)) < 1e-2
    assert error(state.memory, length * first.memory) < length * torch.finfo(torch.float32).eps / 2


def test_published_sizes() -> None:
    """Layers of width 1024: fla's LinearAttention and Based, whose state holds 153 features of values and sum a head."""
    assert Config(n_heads=8, normalise="rms").cost(1024, 1).params == 4_194_432
    based = Config(n_heads=16, feature="taylor").cost(1024, 1)
    assert based.params == 2_621_440
    assert based.state_bytes == 4 * 16 * 153 * (64 + 1)


def test_identity_has_no_sum() -> None:
    with pytest.raises(ConfigError, match="normalise"):
        Config(feature="identity").check(D)


TAYLOR = Config(feature="taylor", feature_dim=3)
PLAIN = Config(feature="identity", normalise="none", rope=Rope(), conv=3)


@pytest.mark.parametrize("config", [TAYLOR, PLAIN, pytest.param(Config(normalise="rms", n_heads=2, feature_dim=5), marks=pytest.mark.slow)])
def test_variants_keep_the_contract(config: Config) -> None:
    check_block(config)
