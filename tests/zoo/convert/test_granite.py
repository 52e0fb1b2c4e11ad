"""Granite against GraniteForCausalLM: factors everywhere."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import ACTIVATION, LAYERS, dense, ropes

CONFIGS = dense(
    "granite",
    layers=LAYERS,
    hidden_act=ACTIVATION,
    rope_parameters=ropes(),
    attention_bias=st.booleans(),
    mlp_bias=st.booleans(),
    embedding_multiplier=st.sampled_from([1.0, 12.0]),
    residual_multiplier=st.sampled_from([1.0, 0.22]),
    attention_multiplier=st.sampled_from([0.25, 0.0625]),
    logits_scaling=st.sampled_from([1.0, 7.0]),
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("granite", hf)
