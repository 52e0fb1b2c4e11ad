"""Gemma 3 (text) against Gemma3ForCausalLM: norms of heads, two bases of positions."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import dense, ropes

CONFIGS = dense(
    "gemma3_text",
    layers=3,
    attention_bias=st.booleans(),
    hidden_activation=st.sampled_from(["gelu_pytorch_tanh", "gelu"]),
    rope_parameters=st.fixed_dictionaries({"sliding_attention": ropes(), "full_attention": ropes()}),
    query_pre_attn_scalar=st.sampled_from([4, 7]),
    sliding_window=st.sampled_from([1, 6]),
    layer_types=st.permutations(["sliding_attention", "sliding_attention", "full_attention"]),
    final_logit_softcapping=st.sampled_from([None, 3.0]),
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("gemma3", hf)
