"""Zamba against ZambaForCausalLM."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.interop.parity import check, examples
from tests.zoo.interop.strategies import VOCAB

CONFIGS = st.fixed_dictionaries(
    {
        "model_type": st.just("zamba"),
        "vocab_size": st.just(VOCAB),
        "hidden_size": st.sampled_from([12, 20]),
        "intermediate_size": st.sampled_from([7, 24]),
        "num_hidden_layers": st.just(5),
        "layers_block_type": st.sampled_from(
            [None, ["hybrid", *["linear_attention"] * 3, "hybrid"], ["mamba", "hybrid", "hybrid", "mamba", "mamba"]]
        ),
        "attn_layer_period": st.sampled_from([1, 2, 3]),
        "attn_layer_offset": st.sampled_from([0, 1]),
        "num_attention_heads": st.just(2),
        "num_key_value_heads": st.sampled_from([1, 2]),
        "attention_head_dim": st.sampled_from([None, 6]),
        "hidden_act": st.sampled_from(["gelu", "silu"]),
        "n_mamba_heads": st.sampled_from([1, 2, 4]),
        "mamba_d_state": st.sampled_from([4, 7]),
        "mamba_d_conv": st.sampled_from([2, 4]),
        "mamba_expand": st.sampled_from([1, 2]),
        "mamba_dt_rank": st.sampled_from(["auto", 3]),
        "mamba_conv_bias": st.booleans(),
        "mamba_proj_bias": st.booleans(),
        "rms_norm_eps": st.just(1e-3),
        "pad_token_id": st.none(),
    }
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("zamba", hf)
