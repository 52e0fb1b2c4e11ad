"""RWKV-4 against transformers' time mixer and channel mixer with the same weights, and against plain sums where those overflow."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blocks import rwkv4, rwkv_channel_mix
from blocks.context import advance
from kernels import backend
from tests.oracle import error, moved

transformers = pytest.importorskip("transformers")

D, WIDTH, HIDDEN, LENGTH, BATCH = 8, 6, 20, 19, 2


def hf_module(class_name: str) -> Any:
    from transformers.models.rwkv import modeling_rwkv

    config = transformers.RwkvConfig(
        hidden_size=D, attention_hidden_size=WIDTH, intermediate_size=HIDDEN, num_hidden_layers=2, vocab_size=8
    )
    hf = getattr(modeling_rwkv, class_name)(config)
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.zero_()
    return moved(hf, 0.7)


def same(block: nn.Module, hf: nn.Module) -> dict[str, nn.Parameter]:
    """Give the block the weights of transformers; returns the latter by the block's names."""
    names = {"mix_": "time_mix_", "decay": "time_decay", "bonus": "time_first"}
    tensors = {}
    for name, parameter in block.named_parameters():
        other = name
        for zoo_name, mapped in names.items():
            other = other.replace(zoo_name, mapped)
        tensors[name] = hf.get_parameter(other)
        with torch.no_grad():
            parameter.copy_(tensors[name].view_as(parameter))
    return tensors


def compare(block: nn.Module, hf: Any) -> Any:
    weights = same(block, hf)
    x, weight = torch.randn(BATCH, LENGTH, D), torch.randn(BATCH, LENGTH, D)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    expected, _ = hf(inputs[0])
    (expected * weight).sum().backward()
    y, state = block(inputs[1], None, advance(None, BATCH, LENGTH)[0])
    (y * weight).sum().backward()
    assert error(y, expected) < 1e-5
    assert error(inputs[1].grad, inputs[0].grad) < 1e-5
    for name, parameter in block.named_parameters():
        grad = weights[name].grad
        assert grad is not None
        assert error(parameter.grad, grad.view_as(parameter)) < 1e-5, name
    return x, state


@pytest.mark.parametrize("backend_name", ["reference", "chunked"])
def test_the_time_mixer(backend_name: str) -> None:
    from transformers.models.rwkv.modeling_rwkv import rwkv_linear_attention_cpu

    hf = hf_module("RwkvSelfAttention")
    with backend(backend_name):
        x, state = compare(rwkv4.Config(width=WIDTH).build(D), hf)
    with torch.no_grad():
        _, k, v, _ = hf.extract_key_value(x)
        _, (n, d, p) = rwkv_linear_attention_cpu(hf.time_decay, hf.time_first, k, v, return_state=True)
    assert error(state.sums, torch.cat([n, d], -1)) < 1e-5
    assert error(state.peak, p) < 1e-5


def test_the_channel_mixer() -> None:
    compare(rwkv_channel_mix.Config(version=4, hidden=HIDDEN).build(D), hf_module("RwkvFeedForward"))


def test_keys_that_overflow_alone() -> None:
    """exp of the largest is no number in float32; the sums over their peak are."""
    block = moved(rwkv4.Block(rwkv4.Config(), D, 0, 1)).double()
    assert isinstance(block, rwkv4.Block)
    k, v = 150 * torch.randn(BATCH, LENGTH, D, dtype=torch.float64), torch.randn(BATCH, LENGTH, D, dtype=torch.float64)
    ctx, _ = advance(None, BATCH, LENGTH)
    wkv, sums, peak = block.average(k, v, None, None, ctx)
    expected = plain(k, v, block)
    assert error(wkv, expected) < 1e-12
    assert all(bool(torch.isfinite(i).all()) for i in (wkv, sums, peak))
    assert error(block.float().average(k.float(), v.float(), None, None, ctx)[0], expected) < 1e-4


def plain(k: Tensor, v: Tensor, block: rwkv4.Block) -> Tensor:
    """Every token's weighted mean written out, as a softmax."""
    t = torch.arange(LENGTH)
    ago = (t[:, None] - 1 - t)[None, :, :, None]  # tokens between, of (now, then)
    logits = k[:, None] - ago * block.decay.exp()
    logits = torch.where(ago == -1, k[:, None] + block.bonus, logits).masked_fill(ago < -1, -torch.inf)
    return (logits.softmax(2) * v[:, None]).sum(2)


def test_published_sizes() -> None:
    """The 169M checkpoint: 12 layers of width 768 with vocabulary 50277, an untied head, layer norms with biases."""
    layer = rwkv4.Config().cost(768, 1).params + rwkv_channel_mix.Config(version=4).cost(768, 1).params + 4 * 768
    assert 12 * layer + 2 * 50277 * 768 + 4 * 768 == 169_342_464
