"""The text model of Llama 4 against Llama4ForCausalLM."""

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import LLAMA3, SCALINGS, dense, ropes
from zoo.config.model import load_model
from zoo.convert.families import llama4_text
from zoo.convert.shared.layers import require_same

PUBLISHED = Path(__file__).parents[4] / "configs" / "models" / "published" / "llama4_scout.yaml"
HUB: dict[str, Any] = {  # what text_config of meta-llama/Llama-4-Scout-17B-16E says of the model
    "model_type": "llama4_text",
    "attention_bias": False,
    "attention_chunk_size": 8192,
    "attn_scale": 0.1,
    "attn_temperature_tuning": 4,
    "floor_scale": 8192,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 5120,
    "interleave_moe_layer_step": 1,
    "intermediate_size": 8192,
    "intermediate_size_mlp": 16384,
    "max_position_embeddings": 262144,
    "moe_layers": list(range(48)),
    "no_rope_layers": [1, 1, 1, 0] * 12,
    "num_attention_heads": 40,
    "num_experts_per_tok": 1,
    "num_hidden_layers": 48,
    "num_key_value_heads": 8,
    "num_local_experts": 16,
    "rms_norm_eps": 1e-5,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "use_qk_norm": True,
    "vocab_size": 202048,
}
CONFIGS = dense(
    "llama4_text",
    layers=3,
    rope_parameters=ropes(*SCALINGS, LLAMA3 | {"high_freq_factor": 1.0}),  # that of Scout Instruct: no ramp
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


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("llama4_text", hf)


def test_the_published_config_json_is_the_published_model() -> None:
    require_same("llama4_text", load_model(PUBLISHED), load_model(llama4_text.to_zoo(HUB)))
