"""Qwen3-MoE against Qwen3MoeForCausalLM."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import dense, ropes

CONFIGS = dense(
    "qwen3_moe",
    layers=3,
    rope_parameters=ropes(),
    attention_bias=st.booleans(),
    use_sliding_window=st.booleans(),
    sliding_window=6,
    num_experts=5,
    num_experts_per_tok=st.sampled_from([1, 2]),
    moe_intermediate_size=st.sampled_from([5, 8]),
    norm_topk_prob=st.booleans(),
    decoder_sparse_step=st.sampled_from([1, 2]),
    mlp_only_layers=st.sampled_from([None, [2]]),
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("qwen3_moe", hf)
