"""GLM-5: DeepSeek-V3.2's latent attention and indexer, whose channels rotate in adjacent pairs, and its experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.errors import require
from zoo.config.model import ModelConfig
from zoo.convert.families import deepseek_v32
from zoo.convert.shared import dense, latent
from zoo.convert.shared.experts import only
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("glm_moe_dsa",)
MODELS = ("glm5",)
UNREAD = ("head_dim", "mlp_bias")
DEFAULTS: dict[str, Any] = {
    "vocab_size": 154880,
    "hidden_size": 6144,
    "intermediate_size": 12288,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 78,
    "num_attention_heads": 64,
    "num_key_value_heads": 64,
    "n_shared_experts": 1,
    "n_routed_experts": 256,
    "routed_scaling_factor": 2.5,
    "kv_lora_rank": 512,
    "q_lora_rank": 2048,
    "qk_rope_head_dim": 64,
    "v_head_dim": 256,
    "qk_nope_head_dim": 192,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "norm_topk_prob": True,
    "hidden_act": "silu",
    "max_position_embeddings": 202752,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "index_topk": 2048,
    "index_head_dim": 128,
    "index_n_heads": 32,
    "indexer_types": None,
    "index_topk_freq": 1,
    "index_topk_pattern": None,
    "mlp_layer_types": None,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS, deepseek_v32.ALIASES)
    kinds = hf["indexer_types"] or []
    require(set(kinds) <= {"full"}, "indexer_types", kinds, "layers that use another layer's indexer can't be built")
    frequency, pattern = hf["index_topk_freq"], hf["index_topk_pattern"]
    require(frequency == 1, "index_topk_freq", frequency, "layers that use another layer's indexer can't be built")
    require(pattern is None or set(pattern) <= {"F"}, "index_topk_pattern", pattern, "must be F for every layer")
    return latent.model(hf, latent.attention(hf) | latent.indexer(hf, pairs="adjacent"), latent.mixture(hf))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    return latent.to_hf(config, "GlmMoeDsa", "glm_moe_dsa") | latent.index_to_hf(only(config, "glm_moe_dsa", "mla"))


def rules(config: ModelConfig) -> list[Entry]:
    return latent.rules(config)
