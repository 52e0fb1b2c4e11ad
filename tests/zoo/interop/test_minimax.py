"""MiniMax-01 against MiniMaxForCausalLM: lightning attention, and sub-layers added to a normed stream."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.interop.parity import check, examples
from tests.zoo.interop.strategies import dense, ropes
from tests.zoo.interop.test_qwen3_next import LAYERS


@examples(
    dense(
        "minimax",
        layers=3,
        layer_types=st.sampled_from([None, *LAYERS]),
        rope_parameters=ropes(),
        sliding_window=st.sampled_from([None, 5]),
        block_size=st.sampled_from([4, 32]),
        num_local_experts=5,
        num_experts_per_tok=st.sampled_from([1, 3]),
        full_attn_alpha_factor=st.sampled_from([1, 1.7]),
        full_attn_beta_factor=0.6,
        linear_attn_alpha_factor=3.5,
        linear_attn_beta_factor=st.sampled_from([1, 0.4]),
        mlp_alpha_factor=1.3,
        mlp_beta_factor=st.sampled_from([1, 0.7]),
    )
)
def test_parity(hf: dict[str, Any]) -> None:
    check("minimax", hf)
