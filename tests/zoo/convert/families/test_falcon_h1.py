"""Falcon-H1 against FalconH1ForCausalLM: factors everywhere."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import DEFAULT, LINEAR, dense, mamba, ropes

FACTOR = st.sampled_from([0.5, 0.75, 1.25])  # the class keeps its factors in float32, where these are exact


def shaped(hf: dict[str, Any]) -> dict[str, Any]:
    """Channels of the state space that its heads divide; both of its projections with a bias or none."""
    return hf | {"mamba_d_ssm": hf["mamba_n_heads"] * hf["mamba_d_ssm"], "projectors_bias": hf["mamba_proj_bias"]}


CONFIGS = dense(
    "falcon_h1",
    **mamba(),
    rope_parameters=ropes(DEFAULT, LINEAR),
    attention_bias=st.booleans(),
    mlp_bias=st.booleans(),
    mamba_rms_norm=st.booleans(),
    mamba_norm_before_gate=st.booleans(),
    embedding_multiplier=FACTOR,
    lm_head_multiplier=FACTOR,
    mlp_multipliers=st.lists(FACTOR, min_size=2, max_size=2),
    key_multiplier=st.sampled_from([0.3, 1.7]),
    attention_in_multiplier=FACTOR,
    attention_out_multiplier=FACTOR,
    ssm_multipliers=st.permutations([0.25, 0.5, 0.75, 1.25, 1.5]),
    ssm_in_multiplier=FACTOR,
    ssm_out_multiplier=FACTOR,
    mamba_d_ssm=st.sampled_from([5, 3]),
).map(shaped)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("falcon_h1", hf)
