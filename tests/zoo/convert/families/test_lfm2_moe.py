"""LFM2 with experts against Lfm2MoeForCausalLM."""

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.families.test_lfm2 import MIXED
from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import dense
from zoo.config.model import load_model
from zoo.convert.families import lfm2_moe
from zoo.convert.shared.layers import require_same

PUBLISHED = Path(__file__).parents[4] / "configs" / "models" / "published" / "lfm2_8b_a1b.yaml"
HUB: dict[str, Any] = {  # what config.json of LiquidAI/LFM2-8B-A1B says of the model
    "model_type": "lfm2_moe",
    "conv_L_cache": 3,
    "conv_bias": False,
    "hidden_size": 2048,
    "intermediate_size": 7168,
    "layer_types": ["full_attention" if i in (2, 6, 10, 14, 18, 21) else "conv" for i in range(24)],
    "max_position_embeddings": 128000,
    "moe_intermediate_size": 1792,
    "norm_eps": 1e-5,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_dense_layers": 2,
    "num_experts": 32,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "rope_theta": 1000000.0,
    "routed_scaling_factor": 1.0,
    "use_expert_bias": True,
    "vocab_size": 65536,
}
CONFIGS = dense(
    "lfm2_moe",
    layers=3,
    free_head_dim=False,
    **MIXED,
    num_experts=5,
    num_experts_per_tok=st.sampled_from([1, 3]),
    moe_intermediate_size=st.sampled_from([5, 8]),
    num_dense_layers=st.sampled_from([0, 1]),
    use_expert_bias=st.booleans(),
    routed_scaling_factor=1.5,
    norm_topk_prob=st.booleans(),
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("lfm2_moe", hf)


def test_the_published_config_json_is_the_published_model() -> None:
    require_same("lfm2_moe", load_model(PUBLISHED), load_model(lfm2_moe.to_zoo(HUB)))
