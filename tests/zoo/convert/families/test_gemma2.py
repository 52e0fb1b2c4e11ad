"""Gemma 2 against Gemma2ForCausalLM: sandwich norms, capped scores and logits."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import LAYERS, dense, ropes

CONFIGS = dense(
    "gemma2",
    layers=LAYERS,
    rope_parameters=ropes(),
    attention_bias=st.booleans(),
    query_pre_attn_scalar=st.sampled_from([4, 7]),
    sliding_window=st.sampled_from([1, 6]),
    attn_logit_softcapping=st.sampled_from([None, 2.0]),
    final_logit_softcapping=st.sampled_from([None, 3.0]),
    hidden_activation=st.sampled_from(["gelu_pytorch_tanh", "gelu"]),
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("gemma2", hf)
