"""DeepSeek-V3.2 against DeepseekV32ForCausalLM: 16 heads of the indexer, so that no two keys score the same."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.interop.parity import check, examples
from tests.zoo.interop.strategies import latent, ropes


@examples(
    latent(
        "deepseek_v32",
        rope_parameters=ropes(),
        attention_bias=st.booleans(),
        index_n_heads=16,
        index_head_dim=st.sampled_from([6, 9]),
        index_topk=st.sampled_from([4, 40]),
    )
)
def test_parity(hf: dict[str, Any]) -> None:
    check("deepseek_v32", hf)
