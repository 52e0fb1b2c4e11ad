"""Zamba2 against Zamba2ForCausalLM."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.interop.parity import check, examples
from tests.zoo.interop.strategies import DEFAULT, LINEAR, VOCAB, ropes

CONFIGS = st.fixed_dictionaries(
    {
        "model_type": st.just("zamba2"),
        "vocab_size": st.just(VOCAB),
        "hidden_size": st.sampled_from([12, 20]),
        "intermediate_size": st.sampled_from([None, 7]),
        "num_hidden_layers": st.just(4),
        "layers_block_type": st.sampled_from(
            [
                ["linear_attention", "hybrid", "hybrid", "hybrid"],
                ["hybrid", "hybrid", "mamba", "hybrid"],
                ["mamba", "mamba", "hybrid", "mamba"],
            ]
        ),
        "num_attention_heads": st.just(2),
        "num_key_value_heads": st.sampled_from([None, 1]),
        "hidden_act": st.sampled_from(["gelu", "silu"]),
        "num_mem_blocks": st.sampled_from([1, 2, 3]),
        "use_shared_attention_adapter": st.booleans(),
        "adapter_rank": st.sampled_from([3, 5]),
        "use_mem_rope": st.booleans(),
        "rope_parameters": ropes(DEFAULT, LINEAR),
        "n_mamba_heads": st.sampled_from([2, 4]),
        "mamba_ngroups": st.sampled_from([1, 2]),
        "mamba_d_state": st.sampled_from([4, 7]),
        "mamba_d_conv": st.sampled_from([2, 4]),
        "time_step_min": st.sampled_from([0.001, 0.3]),
        "chunk_size": st.just(8),
        "add_bias_linear": st.booleans(),
        "rms_norm_eps": st.just(1e-3),
        "pad_token_id": st.none(),
    }
).map(lambda hf: hf | {"num_key_value_heads": None} if hf["use_shared_attention_adapter"] else hf)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("zamba2", hf)
