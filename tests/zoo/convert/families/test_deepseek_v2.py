"""DeepSeek-V2 against DeepseekV2ForCausalLM."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import latent

CONFIGS = latent(
    "deepseek_v2",
    layers=2,
    kv_lora_rank=st.sampled_from([6, 12]),  # the class's complex numbers take no odd strides
    q_lora_rank=st.sampled_from([None, 7]),
    attention_bias=st.booleans(),
    topk_method=st.sampled_from(["greedy", "group_limited_greedy"]),
    n_group=3,
    topk_group=2,
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("deepseek_v2", hf)
