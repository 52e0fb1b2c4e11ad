"""Mamba-1 against transformers: the mixers of Mamba, Falcon-Mamba and Jamba with the same weights."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from blocks.context import advance
from blocks.errors import ConfigError
from blocks.mamba1 import Block, Config
from tests.blocks.mixers import check_going_on, check_values_and_gradients, share_weights
from tests.oracle import error
from zoo.check.contract import CHECKS, check_block

transformers = pytest.importorskip("transformers")

D, N, RANK, TAPS, LENGTH, BATCH = 12, 5, 3, 4, 21, 2
SIZES: dict[str, Any] = {"d_state": N, "conv": TAPS, "dt_rank": RANK}


def mamba(**options: Any) -> tuple[nn.Module, Any]:
    from transformers.models.mamba.modeling_mamba import MambaMixer

    config = transformers.MambaConfig(
        hidden_size=D, state_size=N, conv_kernel=TAPS, expand=2, time_step_rank=RANK, num_hidden_layers=1, vocab_size=8, **options
    )
    return MambaMixer(config, 0), config


def falcon(**options: Any) -> tuple[nn.Module, Any]:
    from transformers.models.falcon_mamba.modeling_falcon_mamba import FalconMambaMixer

    config = transformers.FalconMambaConfig(
        hidden_size=D, state_size=N, conv_kernel=TAPS, expand=2, time_step_rank=RANK, num_hidden_layers=1, vocab_size=8, **options
    )
    mixer = FalconMambaMixer(config, 0, initialize_mixer_weights=False)  # of itself it fails: it starts norms it hasn't made yet
    with torch.no_grad():
        mixer.A_log.copy_(torch.arange(1.0, N + 1).log().expand_as(mixer.A_log))
        mixer.D.fill_(1)
    return mixer, config


def jamba(**options: Any) -> tuple[nn.Module, Any]:
    from transformers.models.jamba.modeling_jamba import JambaMambaMixer

    config = transformers.JambaConfig(
        hidden_size=D, mamba_d_state=N, mamba_d_conv=TAPS, mamba_expand=2, mamba_dt_rank=RANK, num_hidden_layers=1, vocab_size=8, **options
    )
    return JambaMambaMixer(config, 0), config


NAMES = {"conv.": "conv1d.", "norms.0.": "dt_layernorm.", "norms.1.": "b_layernorm.", "norms.2.": "c_layernorm."}


CASES = [
    (mamba, {"use_conv_bias": True, "use_bias": False}, {}),
    (mamba, {"use_conv_bias": False, "use_bias": True}, {"conv_bias": False, "bias": True}),
    (falcon, {}, {"norm_bcdt": "plain"}),
    (jamba, {}, {"norm_bcdt": "weighted"}),
]


@pytest.mark.parametrize("backend_name", ["reference", "chunked"])
@pytest.mark.parametrize(("build", "options", "mine"), CASES)
def test_values_gradients_and_state(build: Any, options: dict[str, Any], mine: dict[str, Any], backend_name: str) -> None:
    hf, config = build(**options)
    block = Block(Config(**SIZES, **mine), D, 0, 1)
    names = share_weights(hf, block, NAMES)
    x = torch.randn(BATCH, LENGTH, D)
    state = check_values_and_gradients(hf, block, names, x, backend_name)
    cache = transformers.DynamicCache(config=config)
    with torch.no_grad():
        hf(x, cache_params=cache)
    assert error(state.ssm, cache.get_recurrent_state(0, state_idx=0)) < 1e-5
    assert error(state.conv.transpose(1, 2), cache.get_conv_state(0, state_idx=0)[..., 1:]) < 1e-5  # transformers holds one input more


def test_one_step_from_a_state() -> None:
    hf, config = mamba()
    block = Block(Config(**SIZES), D, 0, 1)
    share_weights(hf, block, NAMES)
    x, later = torch.randn(BATCH, LENGTH, D), torch.randn(BATCH, 1, D)
    check_going_on(hf, block, transformers.DynamicCache(config=config), x, later)


def test_the_official_start() -> None:
    """A, D, dt and the projections begin as state-spaces/mamba's do."""
    torch.manual_seed(0)
    d, layers = 64, 9
    block = Config().build(d, 2, layers)
    assert torch.allclose(block.A_log.exp(), torch.arange(1.0, 17).expand(2 * d, 16))
    assert torch.equal(block.D, torch.ones(2 * d))
    dt = nn.functional.softplus(block.dt_proj.bias.detach())
    assert 1e-3 * 0.999 <= float(dt.min()) < 3e-3
    assert 3e-2 < float(dt.max()) <= 1e-1 * 1.001
    rank = Config().rank(d)
    assert rank == 4
    for weight, bound in (
        (block.dt_proj.weight, rank**-0.5),
        (block.in_proj.weight, d**-0.5),
        (block.out_proj.weight, (2 * d) ** -0.5 / math.sqrt(layers)),
        (block.conv.weight, TAPS**-0.5),
    ):
        assert 0.95 * bound < float(weight.detach().abs().max()) <= bound


def test_published_sizes() -> None:
    """The 130m checkpoint: 24 layers of width 768, tied embeddings of 50,280, a norm a layer and one at the end."""
    total = 24 * (Config().cost(768, 1).params + 768) + 768 + 50280 * 768
    assert total == 129_135_360


@pytest.mark.parametrize("norm", ["plain", "weighted"])
def test_the_contract_holds_for_its_relatives(norm: str) -> None:
    config = Config(norm_bcdt=norm, bias=norm == "weighted", conv_bias=False, d_state=N, dt_rank=RANK, expand=1.5)
    assert len(check_block(config, D)) == len(CHECKS)


@pytest.mark.parametrize("options", [{"n_heads": 3}, {"n_heads": 2, "norm_bcdt": "weighted", "retention": 0.9, "insertion": 0.5}], ids=str)
def test_the_contract_holds_for_heads(options: dict[str, Any]) -> None:
    assert len(check_block(Config(**SIZES, **options), D)) == len(CHECKS)


def test_heads_are_mambas_side_by_side() -> None:
    """Between the convolution and W_out each head is a Mamba of its own channels."""
    torch.manual_seed(0)
    heads = 2
    block, c = Config(**SIZES, n_heads=heads).build(D).double(), 2 * D // heads
    x = torch.randn(BATCH, LENGTH, D).double()
    ctx, _ = advance(None, BATCH, LENGTH)
    y, state = block(x, None, ctx)
    outputs, states = [], []
    for h in range(heads):
        one, rows, low = Config(**SIZES, expand=1.0).build(D).double(), slice(h * c, (h + 1) * c), RANK + 2 * N
        with torch.no_grad():
            one.in_proj.weight.copy_(torch.cat([block.in_proj.weight[rows], block.in_proj.weight[2 * D :][rows]]))
            one.x_proj.weight.copy_(block.x_proj.weight[h * low : (h + 1) * low])
            for mine, whole in ((one.conv.weight, block.conv.weight), (one.conv.bias, block.conv.bias), (one.D, block.D)):
                mine.copy_(whole[rows])
            for name in ("weight", "bias"):
                getattr(one.dt_proj, name).copy_(getattr(block.dt_proj, name)[rows])
            one.A_log.copy_(block.A_log[rows])
            one.out_proj.weight.copy_(block.out_proj.weight[:, rows])
        output, after = one(x, None, ctx)
        outputs.append(output)
        states.append(after.ssm)
    torch.testing.assert_close(y, sum(outputs), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state.ssm, torch.cat(states, 1), rtol=1e-12, atol=1e-12)


def test_heads_divide_the_channels() -> None:
    with pytest.raises(ConfigError, match="n_heads = 5: must divide the 24 channels"):
        Config(n_heads=5).check(D)
