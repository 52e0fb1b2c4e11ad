"""Qwen3 against Qwen3ForCausalLM: norms of heads, biases, windows on the last layers."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import ACTIVATION, LAYERS, dense, ropes

CONFIGS = dense(
    "qwen3",
    layers=LAYERS,
    hidden_act=ACTIVATION,
    rope_parameters=ropes(),
    attention_bias=st.booleans(),
    use_sliding_window=st.booleans(),
    sliding_window=6,
    max_window_layers=st.sampled_from([0, 1, 3]),
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("qwen3", hf)
