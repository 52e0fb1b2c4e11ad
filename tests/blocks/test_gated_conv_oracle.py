"""gated_conv against the layer of transformers, with its random weights: values and every gradient."""

import pytest
import torch

from blocks.context import advance
from blocks.gated_conv import Config
from tests.oracle import error, moved
from zoo.check.contract import check_block

D, T = 12, 11


@pytest.mark.parametrize("bias", [False, True])
def test_layer_of_transformers(bias: bool) -> None:
    from transformers.models.lfm2 import Lfm2Config
    from transformers.models.lfm2.modeling_lfm2 import Lfm2ShortConv

    config = Lfm2Config(hidden_size=D, num_hidden_layers=1, layer_types=["conv"], conv_L_cache=4, conv_bias=bias)
    hf = moved(Lfm2ShortConv(config, 0)).double()
    block = Config(conv=4, bias=bias).build(D).double()
    named = dict(hf.named_parameters())
    block.load_state_dict({name: named[name].detach().reshape(p.shape) for name, p in block.named_parameters()})
    x, weight = torch.randn(2, T, D, dtype=torch.float64), torch.randn(2, T, D, dtype=torch.float64)
    y, exact = block(x, None, advance(None, 2, T)[0])[0], hf(x)
    assert error(y, exact) < 1e-12
    (y * weight).sum().backward()
    (exact * weight).sum().backward()
    for name, p in block.named_parameters():
        grad = named[name].grad
        assert grad is not None
        assert error(p.grad, grad.reshape(p.shape)) < 1e-12


@pytest.mark.parametrize("config", [Config(conv=1), Config(conv=5, bias=True)])
def test_contract_of_the_variants(config: Config) -> None:
    check_block(config, d_model=16)
