"""SwiGLU, the MLP and RWKV's channel mixer against transformers' modules and against their published equations."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blocks import mlp, rwkv_channel_mix, swiglu
from blocks.context import advance
from blocks.errors import ConfigError
from zoo.check.contract import CHECKS, check_block

transformers = pytest.importorskip("transformers")

D, F, BATCH, LENGTH = 12, 20, 2, 9


def error(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max() / b.detach().abs().max())


def agree(block: nn.Module, hf: nn.Module, names: dict[str, str], *, transposed: bool = False) -> None:
    """Copy the block's weights into transformers' module; the same values, the same gradients of input and weights."""

    def turned(x: Tensor) -> Tensor:
        return x.t() if transposed and x.ndim == 2 else x

    weights = dict(hf.named_parameters())
    pairs = [(parameter, weights.pop(names[name.split(".")[0]] + "." + name.split(".")[1])) for name, parameter in block.named_parameters()]
    assert not weights
    with torch.no_grad():
        for mine, other in pairs:
            mine.normal_()
            other.copy_(turned(mine))
    x = torch.randn(BATCH, LENGTH, D)
    weight = torch.randn_like(x)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    y, state = block(inputs[0], None, advance(None, BATCH, LENGTH)[0])
    expected = hf(inputs[1])
    grads = torch.autograd.grad((y * weight).sum(), [inputs[0], *(mine for mine, _ in pairs)])
    expected_grads = torch.autograd.grad((expected * weight).sum(), [inputs[1], *(other for _, other in pairs)])
    assert len(state) == 0
    assert error(y, expected) < 1e-6
    for mine, other in zip(grads, expected_grads, strict=True):
        assert error(mine, turned(other)) < 1e-6


@pytest.mark.parametrize("bias", [False, True])
def test_swiglu_is_llamas(bias: bool) -> None:
    from transformers.models.llama.modeling_llama import LlamaMLP

    hf = LlamaMLP(transformers.LlamaConfig(hidden_size=D, intermediate_size=F, mlp_bias=bias, num_attention_heads=2))
    block = swiglu.Config(hidden=F, bias=bias).build(D)
    agree(block, hf, {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"})


@pytest.mark.parametrize(("activation", "name"), [("gelu_tanh", "gelu_new"), ("gelu", "gelu"), ("silu", "silu")])
def test_mlp_is_gpt2s(activation: str, name: str) -> None:
    from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

    hf = GPT2MLP(F, transformers.GPT2Config(n_embd=D, activation_function=name, resid_pdrop=0.0))
    block = mlp.Config(activation=activation, hidden=F, bias=True).build(D)
    agree(block, hf, {"up": "c_fc", "down": "c_proj"}, transposed=True)


@pytest.mark.parametrize("bias", [False, True])
def test_mlp_is_nemotrons(bias: bool) -> None:
    from transformers.models.nemotron.modeling_nemotron import NemotronMLP

    hf = NemotronMLP(transformers.NemotronConfig(hidden_size=D, intermediate_size=F, hidden_act="relu2", mlp_bias=bias))
    block = mlp.Config(activation="relu2", hidden=F, bias=bias).build(D)
    agree(block, hf, {"up": "up_proj", "down": "down_proj"})


def test_the_two_gelus_differ() -> None:
    x = torch.randn(100)
    exact, tanh = (mlp.ACTIVATIONS[name](x) for name in ("gelu", "gelu_tanh"))
    assert 1e-5 < error(tanh, exact) < 1e-3


def published_channel_mix(block: Any, x: Tensor, before: Tensor, version: int) -> Tensor:
    """One token, written from the papers' equations with the weights of `block`."""
    w_k, w_v = block.key.weight, block.value.weight
    hidden = w_k @ (x + (before - x) * block.mix_key)
    y = w_v @ torch.where(hidden > 0, hidden * hidden, torch.zeros_like(hidden))
    if version == 7:
        return y
    r = block.receptance.weight @ (x + (before - x) * block.mix_receptance)
    return y / (1 + torch.exp(-r))


@pytest.mark.parametrize("version", [6, 7])
def test_rwkv_channel_mix_token_by_token(version: int) -> None:
    block = rwkv_channel_mix.Config(version=version, hidden=F).build(D, 1, 3).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_()
    leaves = list(block.parameters())
    x = torch.randn(BATCH, LENGTH, D, dtype=torch.float64)
    y, state = block(x, None, advance(None, BATCH, LENGTH)[0])
    rows = []
    for row in x:
        inputs = [torch.zeros(D, dtype=torch.float64), *row]
        rows.append(torch.stack([published_channel_mix(block, now, was, version) for was, now in pairwise(inputs)]))
    expected = torch.stack(rows)
    assert error(y, expected) < 1e-12
    assert torch.equal(state.shift, x[:, -1:])
    weight = torch.randn_like(y)
    for a, b in zip(*(torch.autograd.grad((out * weight).sum(), leaves) for out in (y, expected)), strict=True):
        assert error(a, b) < 1e-12


@pytest.mark.parametrize("version", [6, 7])
def test_rwkv_channel_mix_starts_as_officially(version: int) -> None:
    d, layer, layers = 64, 1, 4
    config = rwkv_channel_mix.Config(version=version)
    block = config.build(d, layer, layers)
    assert config.width(d) == (224 if version == 6 else 256)
    power = 0.75 if version == 6 else 0.75**4
    expected = torch.tensor([1 - (i / d) ** power for i in range(d)])
    assert torch.allclose(block.mix_key, expected)
    assert not block.value.weight.any()
    if version == 6:
        assert torch.allclose(block.mix_receptance, expected)
        assert not block.receptance.weight.any()
        gram = block.key.weight.t() @ block.key.weight  # more rows than columns: the columns are orthonormal
        assert torch.allclose(gram, torch.eye(d), atol=1e-5)
    else:
        assert 0.95 * 0.5 / 8 < float(block.key.weight.detach().abs().max()) <= 0.5 / 8


def test_hidden_widths() -> None:
    assert swiglu.Config().width(192) == 512  # 8/3 of it exactly
    assert swiglu.Config(multiple_of=256).width(4096) == 11008  # LLaMA 7B
    assert swiglu.Config(hidden=7).width(192) == 7
    assert mlp.Config().width(96) == 384
    assert rwkv_channel_mix.Config().width(2048) == 7168  # RWKV-6 1.6B


@pytest.mark.parametrize(
    ("config", "place"),
    [
        (swiglu.Config(expand=-1.0), "expand"),
        (swiglu.Config(hidden=0), "hidden"),
        (swiglu.Config(multiple_of=0), "multiple_of"),
        (mlp.Config(activation="relu"), "activation"),
        (mlp.Config(expand=0.0), "expand"),
        (mlp.Config(hidden=-3), "hidden"),
        (rwkv_channel_mix.Config(version=5), "version"),
        (rwkv_channel_mix.Config(hidden=0), "hidden"),
    ],
)
def test_impossible_sizes_are_named(config: Any, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.check(D)
    assert caught.value.place == place


@pytest.mark.parametrize(
    "config",
    [swiglu.Config(bias=True, hidden=7), mlp.Config(activation="relu2", bias=True), rwkv_channel_mix.Config(version=7)],
    ids=["swiglu", "mlp", "rwkv_channel_mix"],
)
def test_the_contract_holds_for_other_settings(config: Any) -> None:
    assert len(check_block(config, D)) == len(CHECKS)
