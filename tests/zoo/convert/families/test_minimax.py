"""MiniMax-01 against MiniMaxForCausalLM: lightning attention, and sub-layers added to a normed stream."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from blocks.errors import ConfigError
from tests.zoo.convert.families.test_qwen3_next import LAYERS
from tests.zoo.convert.parity import check, compared, examples, hf_model, imported, within
from tests.zoo.convert.strategies import dense, ropes
from zoo.config.model import load_model
from zoo.convert.families import minimax
from zoo.convert.shared.layers import require_same

PUBLISHED = Path(__file__).parents[4] / "configs" / "models" / "published" / "minimax_text_01.yaml"
FACTOR = 3.5565588200778455
HUB: dict[str, Any] = {  # what config.json of MiniMaxAI/MiniMax-Text-01 says of the model
    "model_type": "minimax_text_01",
    "attn_type_list": [int(i % 8 == 7) for i in range(80)],
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 6144,
    "intermediate_size": 9216,
    "layernorm_full_attention_alpha": FACTOR,
    "layernorm_full_attention_beta": 1.0,
    "layernorm_linear_attention_alpha": FACTOR,
    "layernorm_linear_attention_beta": 1.0,
    "layernorm_mlp_alpha": FACTOR,
    "layernorm_mlp_beta": 1.0,
    "num_attention_heads": 64,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 80,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "postnorm": True,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000000,
    "rotary_dim": 64,
    "shared_intermediate_size": 0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "vocab_size": 200064,
}

CONFIGS = dense(
    "minimax",
    layers=3,
    layer_types=st.sampled_from([None, *LAYERS]),
    rope_parameters=ropes(),
    sliding_window=st.sampled_from([None, 5]),
    block_size=st.sampled_from([4, 32]),
    num_local_experts=5,
    num_experts_per_tok=st.sampled_from([1, 3]),
    full_attn_alpha_factor=st.sampled_from([1, 1.7]),
    full_attn_beta_factor=0.6,
    linear_attn_alpha_factor=3.5,
    linear_attn_beta_factor=st.sampled_from([1, 0.4]),
    mlp_alpha_factor=1.3,
    mlp_beta_factor=st.sampled_from([1, 0.7]),
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("minimax", hf)


def test_parity_with_half_of_a_head_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The class as the published model is: with the rotary positions of Qwen3-Next, which turn the first dimensions of a head. Nothing is
    written: the class as it is would read it as another model."""
    from transformers.models.minimax import modeling_minimax
    from transformers.models.qwen3_next import modeling_qwen3_next

    frequencies = staticmethod(modeling_qwen3_next.Qwen3NextRotaryEmbedding.compute_default_rope_parameters)
    monkeypatch.setattr(modeling_minimax.MiniMaxRotaryEmbedding, "compute_default_rope_parameters", frequencies)
    monkeypatch.setattr(modeling_minimax, "apply_rotary_pos_emb", modeling_qwen3_next.apply_rotary_pos_emb)
    turned = {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5}
    sizes = {"hidden_size": 24, "num_attention_heads": 4, "head_dim": 8, "vocab_size": 31, "intermediate_size": 10, "num_local_experts": 4}
    hf = {"model_type": "minimax", "num_hidden_layers": 2, "num_key_value_heads": 2, "rope_parameters": turned, **sizes}
    reference = hf_model(hf)
    within(compared("minimax", reference, model := imported(reference)), hf)
    with pytest.raises(ConfigError, match="turns whole heads"):
        minimax.to_hf(model.config)


def test_the_published_config_json_is_the_published_model() -> None:
    require_same("minimax", load_model(PUBLISHED), load_model(minimax.to_zoo(HUB)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("postnorm", False),
        ("shared_intermediate_size", 512),
        ("attn_type_list", [0] * 79 + [2]),
        ("attn_type_list", None),
        ("rope_scaling", {"type": "x"}),
    ],
)
def test_other_models_of_the_published_code_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError):
        minimax.to_zoo(HUB | {key: value})
