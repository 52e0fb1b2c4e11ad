"""Mamba-2 against transformers: the mixers of Mamba-2, Bamba and Falcon-H1 with the same weights."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from blocks.mamba2 import Block, Config
from tests.blocks.mixers import check_going_on, check_values_and_gradients, share_weights
from tests.oracle import error
from zoo.check.contract import check_block

transformers = pytest.importorskip("transformers")

D, N, P, TAPS, GROUPS, LENGTH, BATCH = 12, 5, 3, 4, 2, 21, 2  # 8 heads in 2 groups
SIZES: dict[str, Any] = {"d_state": N, "head_dim": P, "conv": TAPS, "n_groups": GROUPS, "norm_eps": 1e-5}
TINY: dict[str, Any] = {"hidden_size": D, "num_hidden_layers": 1, "vocab_size": 8}
MAMBA: dict[str, Any] = {"mamba_n_heads": 8, "mamba_d_head": P, "mamba_d_state": N, "mamba_n_groups": GROUPS, "mamba_chunk_size": 8}


def mamba2(**options: Any) -> tuple[nn.Module, Any]:
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    config = transformers.Mamba2Config(
        **TINY, num_heads=8, head_dim=P, state_size=N, n_groups=GROUPS, chunk_size=8, conv_kernel=TAPS, layer_norm_epsilon=1e-5, **options
    )
    return Mamba2Mixer(config, 0), config


def bamba(**options: Any) -> tuple[nn.Module, Any]:
    from transformers.models.bamba.modeling_bamba import BambaMixer

    config = transformers.BambaConfig(**TINY, **MAMBA, rms_norm_eps=1e-5, num_attention_heads=4, **options)
    return BambaMixer(config, 0), config


def falcon_h1(**options: Any) -> tuple[nn.Module, Any]:
    from transformers.models.falcon_h1.modeling_falcon_h1 import FalconH1Mixer

    config = transformers.FalconH1Config(**TINY, **MAMBA, mamba_d_ssm=2 * D, rms_norm_eps=1e-5, num_attention_heads=4, **options)
    mixer = FalconH1Mixer(config, 0)
    mixer.mup_vector = 1.0  # of the parts of in_proj; only the whole model sets it
    return mixer, config


NAMES = {"conv.": "conv1d."}


CASES = [
    (mamba2, {}, {}),
    (mamba2, {"use_conv_bias": False, "use_bias": True}, {"conv_bias": False, "bias": True}),
    (mamba2, {"time_step_limit": (0.3, 0.9)}, {"dt_limit": (0.3, 0.9)}),
    (bamba, {}, {}),
    (falcon_h1, {"mamba_rms_norm": True, "mamba_norm_before_gate": True}, {"norm": "before_gate"}),
    (falcon_h1, {"mamba_rms_norm": True, "mamba_norm_before_gate": False}, {"norm": "after_gate"}),
    (falcon_h1, {"mamba_rms_norm": False}, {"norm": "none"}),
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
    assert error(state.ssm.mT, cache.get_recurrent_state(0, state_idx=0)) < 1e-5  # transformers' is (b, h, value, key)
    assert error(state.conv.transpose(1, 2), cache.get_conv_state(0, state_idx=0)[..., 1:]) < 1e-5  # transformers holds one input more


@pytest.mark.parametrize("more", [1, 9])
def test_going_on_from_a_state(more: int) -> None:
    hf, config = mamba2()
    block = Block(Config(**SIZES), D, 0, 1)
    share_weights(hf, block, NAMES)
    x, later = torch.randn(BATCH, LENGTH, D), torch.randn(BATCH, more, D)
    check_going_on(hf, block, transformers.DynamicCache(config=config), x, later)


def test_the_official_start() -> None:
    """A, D, dt and the projections begin as state-spaces/mamba's do."""
    d, layers = 64, 9
    block = Config(head_dim=1).build(d, 2, layers)
    a, dt = block.A_log.detach().exp(), F.softplus(block.dt_bias.detach())
    assert 1 <= float(a.min()) < 2
    assert 15 < float(a.max()) <= 16
    assert 1e-3 * 0.999 <= float(dt.min()) < 2e-3
    assert 5e-2 < float(dt.max()) <= 1e-1 * 1.001
    assert torch.equal(block.D, torch.ones(2 * d))
    for weight, bound in (
        (block.in_proj.weight, d**-0.5),
        (block.out_proj.weight, (2 * d) ** -0.5 / math.sqrt(layers)),
        (block.conv.weight, TAPS**-0.5),
        (block.conv.bias, TAPS**-0.5),
    ):
        assert 0.95 * bound < float(weight.detach().abs().max()) <= bound


def test_published_sizes() -> None:
    """A layer of width 1024, and the 130m checkpoint: 24 layers of width 768, 50,288 tied embeddings, a norm a layer and one more."""
    assert Config().cost(1024, 1).params == 6_600_032
    assert 24 * (Config().cost(768, 1).params + 768) + 768 + 50288 * 768 == 128_989_632


GROUPED = Config(d_state=5, head_dim=8, n_groups=2, conv=3, bias=True, conv_bias=False, dt_limit=(0.01, 0.1))
STRONG = Config(d_state=6, head_dim=16, n_groups=2, norm="before_gate", a_range=(1.0, 200.0))
PLAIN = Config(d_state=6, head_dim=8, norm="none")


@pytest.mark.parametrize("config", [GROUPED, *(pytest.param(c, marks=pytest.mark.slow) for c in (STRONG, PLAIN))])
def test_variants_keep_the_contract(config: Config) -> None:
    check_block(config)
