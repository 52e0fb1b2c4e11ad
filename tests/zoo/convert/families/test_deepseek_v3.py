"""DeepSeek-V3 against DeepseekV3ForCausalLM."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import latent

CONFIGS = latent(
    "deepseek_v3",
    q_lora_rank=st.sampled_from([None, 7]),
    attention_bias=st.booleans(),
    rope_interleave=st.booleans(),
    n_group=st.sampled_from([1, 3]),
    topk_group=1,
    num_experts_per_tok=2,
    norm_topk_prob=st.booleans(),
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("deepseek_v3", hf)
