"""LFM2 against Lfm2ForCausalLM: gated short convolutions."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import dense, ropes

MIXED: dict[str, Any] = {
    "layer_types": st.sampled_from([["conv", "full_attention", "conv"], ["full_attention", "conv", "conv"], ["conv"] * 3]),
    "rope_parameters": ropes(),
    "conv_L_cache": st.sampled_from([2, 3]),
    "conv_bias": st.booleans(),
    "norm_eps": st.sampled_from([1e-5, 1e-3]),
}

CONFIGS = dense(
    "lfm2",
    layers=3,
    free_head_dim=False,
    **MIXED | {"layer_types": st.none(), "full_attn_idxs": st.sampled_from([[1], [0, 2], [], [0, 1, 2]])},
    block_multiple_of=st.sampled_from([1, 5]),
    block_auto_adjust_ff_dim=st.booleans(),
    block_ffn_dim_multiplier=st.sampled_from([None, 1.3]),
).map(lambda hf: {key: value for key, value in hf.items() if value is not None or key != "block_ffn_dim_multiplier"})


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("lfm2", hf)
