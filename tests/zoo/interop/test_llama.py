"""Llama against LlamaForCausalLM."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.interop.parity import check, examples
from tests.zoo.interop.strategies import dense, ropes


@examples(dense("llama", rope_parameters=ropes(), attention_bias=st.booleans(), mlp_bias=st.booleans(), rms_norm_eps=1e-3))
def test_parity(hf: dict[str, Any]) -> None:
    check("llama", hf)
