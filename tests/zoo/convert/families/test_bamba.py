"""Bamba against BambaForCausalLM."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import DEFAULT, LINEAR, dense, mamba, ropes

CONFIGS = dense(
    "bamba",
    layers=3,
    **mamba(),
    head_dim=st.sampled_from([4, 8]),
    rope_parameters=ropes(DEFAULT, LINEAR),
    attn_layer_indices=st.sampled_from([[1], [0, 2], None]),
    attention_bias=st.booleans(),
    mlp_bias=st.booleans(),
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("bamba", hf)
