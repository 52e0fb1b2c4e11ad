"""mLSTM against transformers' xLSTM layer with the same weights: values, gradients, states, and long texts against single steps."""

from typing import Any

import pytest
import torch
from torch import Tensor

from blocks.context import advance
from blocks.mlstm import Block, Config
from kernels import backend
from tests.oracle import error, moved

transformers = pytest.importorskip("transformers")

D, HEADS, K, V, LENGTH, BATCH = 12, 2, 8, 18, 21, 2


def pair(**options: Any) -> tuple[Any, Block]:
    """The layer of transformers and the block with the same weights; options: of both."""
    from transformers.models.xlstm.modeling_xlstm import xLSTMLayer

    sizes = {"qk_dim_factor": K / D, "v_dim_factor": V / D, "norm_eps": 1e-6}
    caps = {"gate_soft_cap": options.get("gate_softcap", 15.0), "eps": options.get("eps", 1e-6)}
    config = transformers.xLSTMConfig(
        hidden_size=D, num_heads=HEADS, num_hidden_layers=1, vocab_size=8, chunk_size=8, autocast_kernel_dtype="float32", **sizes, **caps
    )
    hf = moved(xLSTMLayer(config), 0.5)
    block = Block(Config(n_heads=HEADS, expand_k=K / D, expand_v=V / D, **options), D, 1)
    with torch.no_grad():
        for name, value in as_zoo(hf, "data").items():
            block.get_parameter(name).copy_(value)
    return hf, block


def as_zoo(hf: Any, what: str) -> dict[str, Tensor]:
    """The parameters (`data`) or gradients (`grad`) of transformers' layer under the block's names."""

    def of(*names: str) -> Tensor:
        return torch.cat([getattr(hf.get_parameter(name), what) for name in names])

    return {
        "in_proj.weight": of("q.weight", "k.weight", "v.weight", "ogate_preact.weight"),
        "gate_proj.weight": of("igate_preact.weight", "fgate_preact.weight"),
        "gate_proj.bias": of("igate_preact.bias", "fgate_preact.bias"),
        "norm": of("multihead_norm.weight"),
        "out_proj.weight": of("out_proj.weight"),
    }


@pytest.mark.parametrize("backend_name", ["reference", "chunked"])
@pytest.mark.parametrize("options", [{}, {"gate_softcap": 1.5, "eps": 1e-2}])
def test_values_gradients_and_state(options: dict[str, Any], backend_name: str) -> None:
    hf, block = pair(**options)
    x, weight = torch.randn(BATCH, LENGTH, D), torch.randn(BATCH, LENGTH, D)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    expected, (c, n, m) = hf(inputs[0])
    (expected * weight).sum().backward()
    with backend(backend_name):
        y, state = block(inputs[1], None, advance(None, BATCH, LENGTH)[0])
    (y * weight).sum().backward()
    assert error(y, expected) < 1e-5
    assert error(state.memory, torch.cat([c, n[..., None]], -1)) < 1e-5
    assert error(state.peak, m[..., 0]) < 1e-5
    assert error(inputs[1].grad, inputs[0].grad) < 1e-5
    gradients = as_zoo(hf, "grad")
    for name, parameter in block.named_parameters():
        assert error(parameter.grad, gradients[name]) < 1e-5, name


def test_float32_over_a_long_text() -> None:
    """Input gates from e^-15 to e^15: whole = steps = float64, to the last places of float32."""
    _, block = pair()
    with torch.no_grad():
        block.gate_proj.weight *= 20
        x, length = torch.randn(1, 700, D), 700
        whole, _ = block(x, None, advance(None, 1, length)[0])
        steps, state, cursor = [], None, None
        for t in range(length):
            ctx, cursor = advance(cursor, 1, 1)
            y, state = block(x[:, t : t + 1], state, ctx)
            steps.append(y)
        exact, _ = block.double()(x.double(), None, advance(None, 1, length)[0])
    assert error(whole, exact) < 1e-5
    assert error(torch.cat(steps, 1), exact) < 1e-5


def test_published_sizes() -> None:
    """A layer of xLSTM 7B: width 4096, 8 heads, keys half as wide."""
    assert Config(n_heads=8).cost(4096, 1).params == 4096 * (2048 * 2 + 4096 * 3) + 2 * 8 * 4097 + 4096
