"""DeepSeek-V3.2 against DeepseekV32ForCausalLM: 16 heads of the indexer, so that no two keys score the same."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import latent

CONFIGS = latent(
    "deepseek_v32",
    norm_topk_prob=st.booleans(),
    n_group=st.sampled_from([1, 3]),
    num_experts_per_tok=2,
    attention_bias=st.booleans(),
    index_n_heads=16,
    index_head_dim=st.sampled_from([6, 9]),
    index_topk=st.sampled_from([4, 40]),
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("deepseek_v32", hf)
