"""Granite against GraniteForCausalLM: factors everywhere."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import ACTIVATION, FACTORS, LAYERS, dense, ropes

CONFIGS = dense(
    "granite",
    layers=LAYERS,
    hidden_act=ACTIVATION,
    rope_parameters=ropes(),
    attention_bias=st.booleans(),
    mlp_bias=st.booleans(),
    **FACTORS,
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("granite", hf)
