"""Cohere 2 against Cohere2ForCausalLM: parallel sub-layers, adjacent pairs."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import ACTIVATION, dense, ropes

CONFIGS = dense(
    "cohere2",
    layers=3,
    hidden_act=ACTIVATION,
    layer_norm_eps=st.sampled_from([1e-5, 1e-3]),
    free_head_dim=False,
    rope_parameters=ropes(),
    attention_bias=st.booleans(),
    logit_scale=st.sampled_from([0.0625, 1.5]),
    sliding_window=st.sampled_from([1, 6]),
    layer_types=st.permutations(["sliding_attention", "sliding_attention", "full_attention"]),
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("cohere2", hf)
