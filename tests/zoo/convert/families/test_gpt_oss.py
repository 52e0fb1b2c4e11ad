"""gpt-oss against GptOssForCausalLM."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import YARN, dense, ropes

CONFIGS = dense(
    "gpt_oss",
    layers=3,
    rope_parameters=ropes({"rope_type": "default"}, YARN, YARN | {"truncate": False}),
    sliding_window=st.sampled_from([1, 6]),
    layer_types=st.sampled_from([None, ["full_attention", "sliding_attention", "sliding_attention"]]),
    swiglu_alpha=st.sampled_from([1.702, 0.9]),
    num_local_experts=5,
    num_experts_per_tok=st.sampled_from([1, 3]),
    swiglu_limit=st.sampled_from([0.7, 7.0]),
    attention_bias=st.booleans(),
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("gpt_oss", hf)
