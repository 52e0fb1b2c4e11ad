"""Qwen3-Next against Qwen3NextForCausalLM: projections fused by key head, gates beside queries."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import dense, ropes

LAYERS = [["linear_attention", "full_attention", "linear_attention"], ["full_attention", "linear_attention", "full_attention"]]
SIZES: dict[str, Any] = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": st.sampled_from([2, 6]),
    "linear_key_head_dim": st.sampled_from([4, 6]),
    "linear_value_head_dim": st.sampled_from([5, 9]),
    "linear_conv_kernel_dim": st.sampled_from([2, 4]),
}
ATTENTION = {"head_dim": st.sampled_from([4, 12]), "rope_parameters": ropes(), "partial_rotary_factor": st.sampled_from([0.5, 1.0])}
EPS = {"rms_norm_eps": st.sampled_from([1e-6, 1e-3])}
MIXED = {"layer_types": st.sampled_from(LAYERS)} | ATTENTION | SIZES | EPS


CONFIGS = dense(
    "qwen3_next",
    layers=3,
    **MIXED,
    num_experts=5,
    num_experts_per_tok=st.sampled_from([1, 3]),
    moe_intermediate_size=st.sampled_from([5, 8]),
    shared_expert_intermediate_size=7,
    norm_topk_prob=st.booleans(),
    decoder_sparse_step=st.sampled_from([1, 2]),
    mlp_only_layers=st.sampled_from([None, [0]]),
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("qwen3_next", hf)
