"""The text model of Llama 4 against Llama4ForCausalLM."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.interop.parity import check, examples
from tests.zoo.interop.strategies import dense, ropes


@examples(
    dense(
        "llama4_text",
        layers=3,
        rope_parameters=ropes(),
        attention_chunk_size=st.sampled_from([4, 9]),
        intermediate_size_mlp=11,
        interleave_moe_layer_step=st.sampled_from([1, 2]),
        no_rope_layer_interval=3,
        num_local_experts=4,
        use_qk_norm=st.booleans(),
        attn_temperature_tuning=st.booleans(),
        floor_scale=5,
        attn_scale=0.4,
    )
)
def test_parity(hf: dict[str, Any]) -> None:
    check("llama4_text", hf)
