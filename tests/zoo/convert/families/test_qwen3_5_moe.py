"""The text model of Qwen3.5 with experts against Qwen3_5MoeForCausalLM."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.families.test_qwen3_next import MIXED
from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import dense

CONFIGS = dense(
    "qwen3_5_moe_text",
    layers=3,
    **MIXED,
    num_experts=5,
    num_experts_per_tok=st.sampled_from([1, 3]),
    moe_intermediate_size=st.sampled_from([5, 8]),
    shared_expert_intermediate_size=7,
)


@examples(CONFIGS, count=3)
def test_parity(hf: dict[str, Any]) -> None:
    check("qwen3_5_moe", hf)
