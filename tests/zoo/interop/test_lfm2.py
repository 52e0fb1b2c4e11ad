"""LFM2 against Lfm2ForCausalLM and Lfm2MoeForCausalLM: gated short convolutions."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.interop.parity import check, examples
from tests.zoo.interop.strategies import dense, ropes

MIXED: dict[str, Any] = {
    "layer_types": st.sampled_from([["conv", "full_attention", "conv"], ["full_attention", "conv", "conv"]]),
    "rope_parameters": ropes(),
    "conv_L_cache": st.sampled_from([2, 3]),
    "conv_bias": st.booleans(),
    "norm_eps": 1e-3,
}


@examples(
    dense(
        "lfm2",
        layers=3,
        free_head_dim=False,
        **MIXED,
        block_multiple_of=st.sampled_from([1, 5]),
        block_auto_adjust_ff_dim=st.booleans(),
        block_ffn_dim_multiplier=st.sampled_from([None, 1.3]),
    ).map(lambda hf: {key: value for key, value in hf.items() if value is not None or key != "block_ffn_dim_multiplier"})
)
def test_parity(hf: dict[str, Any]) -> None:
    check("lfm2", hf)


@examples(
    dense(
        "lfm2_moe",
        layers=3,
        free_head_dim=False,
        **MIXED,
        num_experts=5,
        num_experts_per_tok=st.sampled_from([1, 3]),
        moe_intermediate_size=st.sampled_from([5, 8]),
        num_dense_layers=st.sampled_from([0, 1]),
        use_expert_bias=st.booleans(),
        routed_scaling_factor=1.5,
        norm_topk_prob=st.booleans(),
    )
)
def test_parity_with_experts(hf: dict[str, Any]) -> None:
    check("lfm2_moe", hf)
