"""Granite 4 against GraniteMoeHybridForCausalLM."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import DEFAULT, FACTORS, LINEAR, dense, mamba, ropes

CONFIGS = dense(
    "granitemoehybrid",
    layers=3,
    **mamba(),
    rope_parameters=ropes(DEFAULT, LINEAR),
    position_embedding_type=st.sampled_from([None, "rope"]),
    layer_types=st.sampled_from([["linear_attention", "full_attention", "linear_attention"], ["full_attention", "mamba", "attention"]]),
    attention_bias=st.booleans(),
    num_local_experts=st.sampled_from([0, 5]),
    num_experts_per_tok=st.sampled_from([1, 2]),
    shared_intermediate_size=st.sampled_from([6, 9]),
    **FACTORS,
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("granitemoehybrid", hf)
