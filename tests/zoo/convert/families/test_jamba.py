"""Jamba against JambaForCausalLM."""

from typing import Any

import pytest
from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import dense
from zoo.config.model import load_model
from zoo.convert.families.jamba import periodic, to_zoo

CONFIGS = dense(
    "jamba",
    layers=4,
    free_head_dim=False,
    attn_layer_period=st.sampled_from([2, 3]),
    attn_layer_offset=st.sampled_from([0, 1]),
    expert_layer_period=2,
    expert_layer_offset=st.sampled_from([0, 1]),
    num_experts=st.sampled_from([1, 5]),
    num_experts_per_tok=st.sampled_from([1, 2]),
    mamba_d_state=st.sampled_from([4, 7]),
    mamba_d_conv=st.sampled_from([2, 4]),
    mamba_expand=st.sampled_from([1, 2]),
    mamba_dt_rank=st.sampled_from([2, 3]),  # the norm of a single number is its sign, and jumps
    mamba_conv_bias=st.booleans(),
    mamba_proj_bias=st.booleans(),
    rms_norm_eps=1e-3,
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("jamba", hf)


@pytest.mark.parametrize("chosen", [[], [3], [1, 3], [0, 3], [0, 1, 2, 3]])
def test_periods_say_which_layers(chosen: list[int]) -> None:
    period, offset = periodic([layer in chosen for layer in range(4)])
    assert 0 <= offset < period
    assert [layer for layer in range(4) if layer % period == offset] == chosen


def test_the_width_of_the_steps_follows_from_the_model_s() -> None:
    space: Any = load_model(to_zoo({"hidden_size": 40, "num_attention_heads": 2, "num_key_value_heads": 1})).named["M"].config
    assert space.resolved(40).dt_rank == 3
