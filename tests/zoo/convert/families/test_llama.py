"""Llama against LlamaForCausalLM."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import ACTIVATION, LAYERS, dense, ropes

CONFIGS = dense(
    "llama", layers=LAYERS, hidden_act=ACTIVATION, rope_parameters=ropes(), attention_bias=st.booleans(), mlp_bias=st.booleans()
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("llama", hf)
