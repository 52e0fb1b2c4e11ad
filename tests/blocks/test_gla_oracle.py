"""Gated linear attention against fla's naive recurrences and MiniMax's lightning attention in transformers."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.context import advance
from blocks.errors import ConfigError
from blocks.gla import Block, Config
from blocks.rope import Rope
from kernels import backend
from tests.blocks.mixers import check_same
from tests.oracle import error, fla, moved
from zoo.check.contract import check_block

D, HEADS, LENGTH, BATCH = 24, 3, 21, 2
WIDTHS: dict[str, Any] = {"n_heads": HEADS, "expand_k": 0.5, "expand_v": 2.0}  # heads of 4 keys and 16 values
CASES: dict[str, Any] = {
    "vector": Config(**WIDTHS),
    "scalar": Config(**WIDTHS, gate="scalar", conv=4),
    "retnet": Config(**WIDTHS, gate="retnet", rope=Rope()),
    "none": Config(**WIDTHS, gate="none", qk_activation="relu", output_gate="none"),
    "shared": Config(n_heads=6, n_kv_heads=2, expand_v=2.0, bias=True, qk_activation="relu", output_gate="none"),  # SpikingBrain's
    "shared scalar": Config(n_heads=6, n_kv_heads=3, expand_v=2.0, gate="scalar", conv=4, bias=True),
}


def recurrence(gate: str, q: Tensor, k: Tensor, v: Tensor, g: Tensor | None) -> Tensor:
    """fla's definition of o, its scale K^-0.5 included. q, k, v (b, t, h, .)."""
    if gate == "vector":
        return fla("gla/naive.py").naive_recurrent_gla(q, k, v, g)[0]
    if gate == "scalar":
        return fla("simple_gla/naive.py").naive_recurrent_simple_gla(q, k, v, g)[0]
    if gate == "retnet":
        return fla("retention/naive.py").naive_retention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    return fla("linear_attn/naive.py").naive_recurrent_linear_attn(q, k, v)[0]


def turned(x: Tensor) -> Tensor:
    """RoPE as complex numbers. x (b, t, h, e)."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[1])[:, None] * 10000.0 ** (-torch.arange(half) / half)
    z = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)[:, None]
    return torch.cat([z.real, z.imag], -1)


def reference(block: Block, x: Tensor) -> Tensor:
    """The layer, written plainly around fla's recurrence."""
    config = block.config
    h, m = config.n_heads, config.n_kv_heads or config.n_heads
    mixed = x @ block.in_proj.weight.T + (block.in_proj.bias if config.bias else 0)
    if block.conv is not None:
        padded = F.pad(mixed.transpose(1, 2), (config.conv - 1, 0))
        mixed = F.silu(F.conv1d(padded, block.conv.weight[:, None], groups=mixed.shape[-1])).transpose(1, 2)
    q, k, v = (i.reshape(BATCH, LENGTH, n, -1) for n, i in zip((h, m, m), mixed.split(block.sizes, -1), strict=True))
    if config.rope is not None:
        q, k = turned(q), turned(k)
    if config.qk_activation == "relu":
        q, k = q.relu(), k.relu()
    g = None
    if block.g_proj is not None:
        g = F.logsigmoid(block.g_proj(x)) / 16
        g = (g.reshape(BATCH, LENGTH, m, -1) if config.gate == "vector" else g).repeat_interleave(h // m, 2)
    k, v = (i.repeat_interleave(h // m, 2) for i in (k, v))
    o = recurrence(config.gate, q, k, v, g)
    o = (o * (o.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * block.norm.weight).flatten(2)
    if block.z_proj is not None:
        z = block.z_proj(x)
        o = o * z * z.sigmoid()
    return o @ block.out_proj.weight.T


@pytest.mark.parametrize("backend_name", ["reference", "chunked"])
@pytest.mark.parametrize("name", CASES)
def test_the_layer_around_flas_recurrence(name: str, backend_name: str) -> None:
    block = moved(Block(CASES[name], D, 0, 1))
    check_same(lambda x: reference(block, x), block, torch.randn(BATCH, LENGTH, D), backend_name)


@pytest.mark.parametrize("gate", ["vector", "scalar", "none"])
def test_a_shared_memory_is_as_many_equal_ones(gate: str) -> None:
    """A block with n_kv_heads = 2 of 6 and one with 6, whose keys, values and gates are those of the 2, each three times."""
    config = Config(n_heads=6, n_kv_heads=2, expand_v=2.0, gate=gate, conv=3, bias=True, rope=Rope())
    shared, full = moved(Block(config, D, 0, 1)), Block(replace(config, n_kv_heads=None), D, 0, 1)
    assert list(shared.state_dict()) == list(full.state_dict())

    def repeated(name: str, x: Tensor) -> Tensor:
        def times(part: Tensor) -> Tensor:
            return part.unflatten(0, (2, -1)).repeat_interleave(3, 0).flatten(0, 1)

        if name.startswith(("in_proj", "conv")):
            q, k, v = x.split(shared.sizes)
            return torch.cat([q, times(k), times(v)])
        return times(x) if name.startswith(("g_proj.1", "g_proj.weight", "g_proj.bias")) else x

    full.load_state_dict({name: repeated(name, x) for name, x in shared.state_dict().items()})
    x = torch.randn(BATCH, LENGTH, D)
    (y, state), (expected, theirs_state) = (b(x, None, advance(None, BATCH, LENGTH)[0]) for b in (shared, full))
    assert error(y, expected) < 1e-6
    assert state.memory.shape == (BATCH, 2, 2, 8)
    assert error(state.memory.repeat_interleave(3, 1), theirs_state.memory) < 1e-6


def minimax(layer: int, layers: int) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention

    config = transformers.MiniMaxConfig(
        hidden_size=D, num_attention_heads=HEADS, head_dim=D // HEADS, num_hidden_layers=layers, block_size=8, vocab_size=8
    )
    return moved(MiniMaxLightningAttention(config, layer))


def lightning(source: nn.Module, layer: int, layers: int) -> Block:
    """The block with MiniMax's weights: its projection holds q, k and v head by head."""
    config = Config(
        n_heads=HEADS, gate="lightning", expand_k=1.0, qk_activation="silu", v_activation="silu", norm="full", output_gate="sigmoid",
        scale=1.0, norm_eps=source.norm.variance_epsilon,
    )  # fmt: skip
    block = Block(config, D, layer, layers)
    with torch.no_grad():
        block.in_proj.weight.copy_(by_part(source.qkv_proj.weight))
        for mine, other in ((block.z_proj, source.output_gate), (block.out_proj, source.out_proj), (block.norm, source.norm)):
            mine.weight.copy_(other.weight)
    return block


def by_part(weight: Tensor) -> Tensor:
    """(h, 3, e) rows as (3, h, e)."""
    return weight.view(HEADS, 3, -1, D).transpose(0, 1).reshape(-1, D)


@pytest.mark.parametrize("backend_name", ["reference", "chunked"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_lightning_attention_is_minimaxs(layer: int, backend_name: str) -> None:
    source = minimax(layer, 3)
    block = lightning(source, layer, 3)
    x, weight = torch.randn(BATCH, LENGTH, D), torch.randn(BATCH, LENGTH, D)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    expected, memory = source(inputs[0], (x, x), None)
    (expected * weight).sum().backward()
    with backend(backend_name):
        y, state = block(inputs[1], None, advance(None, BATCH, LENGTH)[0])
    (y * weight).sum().backward()
    assert error(y, expected) < 1e-5
    assert error(state.memory, memory) < 1e-5
    assert error(inputs[1].grad, inputs[0].grad) < 1e-5
    assert error(block.in_proj.weight.grad, by_part(source.qkv_proj.weight.grad)) < 1e-5
    for mine, other in ((block.z_proj, source.output_gate), (block.out_proj, source.out_proj), (block.norm, source.norm)):
        assert error(mine.weight.grad, other.weight.grad) < 1e-5


def test_fixed_rates() -> None:
    ctx, _ = advance(None, 1, 1)
    x = torch.zeros(1, 1, 32)

    def rates(gate: str, layer: int, layers: int) -> list[float]:
        return Config(gate=gate).build(32, layer, layers).gates(x, ctx)[0, 0].tolist()

    assert rates("retnet", 3, 9) == pytest.approx([math.log(1 - 2.0 ** -(5 + i)) for i in range(4)], rel=1e-6)
    assert rates("lightning", 0, 5) == pytest.approx([-(0.25 ** (i + 1)) for i in range(4)], rel=1e-4)
    assert rates("transnormer", 1, 4) == pytest.approx([-0.0, -1.5, -3.0, -4.5])
    assert min(rates("lightning", 4, 5)) > -1e-4  # the last layer forgets next to nothing


def test_the_published_start() -> None:
    """Learned gates begin around exp(log(1/2) / 16) = 0.958."""
    block = Config().build(64)
    decay = block.gates(torch.randn(2, 50, 64), advance(None, 2, 50)[0]).detach().exp()
    assert abs(float(decay.mean()) - 0.958) < 0.002
    assert torch.equal(block.g_proj[1].bias, torch.zeros(32))


@pytest.mark.parametrize(
    ("config", "params"),
    [
        (Config(n_heads=4), 4_219_648),
        (Config(n_heads=4, gate="scalar", expand_k=1.0, conv=4), 5_259_524),
        (Config(n_heads=4, gate="retnet", expand_k=1.0, expand_v=2.0, rope=Rope()), 8_389_120),
        (Config(n_heads=8, gate="lightning", expand_k=1.0, norm="full", output_gate="sigmoid"), 5 * 1024**2 + 1024),
        # q and the output, k and v of 256 channels, the gate's two matrices and bias; the biases of q, k and v, a norm of 64
        (
            Config(n_heads=16, n_kv_heads=4, expand_k=1.0, bias=True, output_gate="none"),
            2 * 1024**2 + 2 * 256 * 1024 + 16 * (1024 + 256) + 256 + (1024 + 2 * 256) + 64,
        ),
    ],
)
def test_published_sizes(config: Config, params: int) -> None:
    """A layer of width 1024."""
    assert config.cost(1024, 1).params == params


CONV = Config(conv=3, rope=Rope(), n_heads=2)
RETNET = Config(gate="retnet", expand_k=1.0, expand_v=2.0, rope=Rope())
SIMPLE = Config(gate="scalar", conv=4, expand_k=1.0)
SHARED = Config(n_heads=8, n_kv_heads=2, conv=3, bias=True, rope=Rope(), expand_v=2.0)
SHARED_RATES = Config(gate="retnet", n_heads=8, n_kv_heads=2)
LIGHTNING = Config(gate="lightning", expand_k=1.0, qk_activation="silu", v_activation="silu", norm="full", output_gate="sigmoid", scale=1.0)


@pytest.mark.parametrize("n_kv_heads", [0, 3, 8])
def test_shared_heads_divide_the_queries(n_kv_heads: int) -> None:
    with pytest.raises(ConfigError, match=r"must divide n_heads = 4\. divisors: 1, 2, 4") as caught:
        Config(n_kv_heads=n_kv_heads).check(32)
    assert caught.value.place == "n_kv_heads"


@pytest.mark.parametrize(
    "config",
    [
        CONV,
        LIGHTNING,
        SHARED,
        *(pytest.param(c, marks=pytest.mark.slow) for c in (SHARED_RATES, RETNET, SIMPLE, Config(gate="none"))),
    ],
    ids=lambda config: config.gate,
)
def test_variants_keep_the_contract(config: Config) -> None:
    check_block(config)


@pytest.mark.slow
def test_transnormer_keeps_the_contract() -> None:
    """Far up a stack: below, its decays are so strong that chunks are cut shorter than the ledger's executed FLOPs say."""
    check_block(Config(gate="transnormer"), layer=31, n_layers=32)
