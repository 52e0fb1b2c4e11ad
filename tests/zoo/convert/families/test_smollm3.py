"""SmolLM3 against SmolLM3ForCausalLM: layers without positions."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import ACTIVATION, dense, ropes

CONFIGS = dense(
    "smollm3",
    layers=4,
    hidden_act=ACTIVATION,
    mlp_bias=st.booleans(),
    rope_parameters=ropes(),
    attention_bias=st.booleans(),
    no_rope_layer_interval=st.sampled_from([2, 3, 4]),
    use_sliding_window=st.booleans(),
    sliding_window=st.sampled_from([None, 5]),
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("smollm3", hf)
