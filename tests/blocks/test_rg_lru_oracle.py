"""RG-LRU against transformers' recurrent block of Griffin with the same weights, and where its derivative is kept small."""

from typing import Any

import pytest
import torch
from torch import nn

from blocks.context import advance
from blocks.rg_lru import STEEPEST, Block, Config, bounded_root
from kernels import backend
from tests.oracle import error, moved

transformers = pytest.importorskip("transformers")

D, WIDTH, HEADS, TAPS, LENGTH, BATCH = 8, 12, 2, 3, 19, 2


def pair() -> tuple[Any, Block]:
    """The block of transformers and that of the zoo with the same weights."""
    from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRecurrentBlock

    config = transformers.RecurrentGemmaConfig(
        hidden_size=D, num_attention_heads=HEADS, lru_width=WIDTH, conv1d_width=TAPS, num_hidden_layers=1, vocab_size=8
    )
    hf = RecurrentGemmaRecurrentBlock(config, 0)
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.zero_()
    moved(hf, 0.6)
    block = Block(Config(width=WIDTH, n_heads=HEADS, conv=TAPS), D, 1)
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            parameter.copy_(hf_as_zoo(hf, "data")[name])
    return hf, block


def hf_as_zoo(hf: Any, what: str) -> dict[str, torch.Tensor]:
    """The parameters (`data`) or gradients (`grad`) of transformers' block under the zoo's names."""

    def of(name: str) -> torch.Tensor:
        return getattr(hf.get_parameter(name), what)

    tensors = {"decay": of("rg_lru.recurrent_param"), "conv.weight": of("conv_1d.weight")[:, 0], "conv.bias": of("conv_1d.bias")}
    for zoo_name, name in (("y_proj", "linear_y"), ("x_proj", "linear_x"), ("out_proj", "linear_out")):
        tensors |= {f"{zoo_name}.{part}": of(f"{name}.{part}") for part in ("weight", "bias")}
    for zoo_name, part in (("gates", "weight"), ("gates_bias", "bias")):
        tensors[zoo_name] = torch.cat([of(f"rg_lru.{gate}_gate_{part}") for gate in ("input", "recurrent")], -1)
    return tensors


@pytest.mark.parametrize("backend_name", ["reference", "chunked"])
def test_values_gradients_and_state(backend_name: str) -> None:
    hf, block = pair()
    x, weight = torch.randn(BATCH, LENGTH, D), torch.randn(BATCH, LENGTH, D)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    ctx, _ = advance(None, BATCH, LENGTH)
    expected, _ = hf(inputs[0], ctx.positions, None, use_cache=False)
    state = hf.rg_lru.recurrent_states
    (expected * weight).sum().backward()
    with backend(backend_name):
        y, after = block(inputs[1], None, ctx)
    (y * weight).sum().backward()
    assert error(y, expected) < 1e-5
    assert error(after.h, state) < 1e-5
    assert error(inputs[1].grad, inputs[0].grad) < 1e-5
    gradients = hf_as_zoo(hf, "grad")
    for name, parameter in block.named_parameters():
        assert error(parameter.grad, gradients[name]) < 1e-5, name


def test_packed_documents_start_as_theirs_do() -> None:
    """Where a position is 0 they forget and write the whole input."""
    hf, block = pair()
    hf.conv_1d.weight.data[:, :, :-1] = 0  # transformers carries the convolution's inputs over
    block.conv.weight.data[:, :-1] = 0
    x, documents = torch.randn(1, LENGTH, D), torch.tensor([[0] * 7 + [1] * 12])
    ctx, _ = advance(None, 1, LENGTH, documents=documents)
    expected, _ = hf(x, ctx.positions, None, use_cache=False)
    assert error(block(x, None, ctx)[0], expected) < 1e-5


def test_the_root_and_its_derivative() -> None:
    x = torch.tensor([0.0, 1e-9, 2.5e-7, 1e-6, 0.5], dtype=torch.float64, requires_grad=True)
    y = bounded_root(x)
    y.sum().backward()
    torch.testing.assert_close(y, x.sqrt())
    steep = torch.cat([torch.full((3,), STEEPEST, dtype=torch.float64), 0.5 * x.detach()[3:] ** -0.5])
    torch.testing.assert_close(x.grad, steep)


def test_where_the_decay_starts() -> None:
    torch.manual_seed(0)
    kept = torch.exp(-nn.functional.softplus(Config(width=4096).build(8).decay.detach())).square()
    assert 0.9**2 < float(kept.min()) < 0.9**2 + 0.001
    assert 0.999**2 - 0.001 < float(kept.max()) < 0.999**2


def test_published_sizes() -> None:
    """A recurrent block of the 2B model: three projections of 2560, gates in ten blocks."""
    projections, gates = 3 * (2560 * 2560 + 2560), 2 * 10 * (256 * 256 + 256)
    assert Config(n_heads=10).cost(2560, 1).params == projections + gates + 5 * 2560 + 2560
