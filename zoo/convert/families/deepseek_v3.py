"""DeepSeek-V3 (arXiv:2412.19437): latent attention, then experts that a sigmoid with a selection bias chooses within groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, latent
from zoo.convert.shared.experts import only
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("deepseek_v3",)
MODELS = ("deepseek_v3",)
UNREAD = ("num_mtp_layers",)
DEFAULTS: dict[str, Any] = {
    "vocab_size": 129280,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "n_shared_experts": 1,
    "n_routed_experts": 256,
    "routed_scaling_factor": 2.5,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "qk_nope_head_dim": 128,
    "n_group": 8,
    "topk_group": 4,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "norm_topk_prob": True,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "rope_interleave": True,
    "attention_bias": False,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS, {"num_local_experts": "n_routed_experts"})
    attention = latent.attention(hf, pairs="adjacent" if hf["rope_interleave"] else "halves")
    return latent.model(hf, attention, latent.mixture(hf))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    rope = only(config, "deepseek_v3", "mla")[0][0].rope
    interleave = rope is None or rope.pairs == "adjacent"
    return latent.to_hf(config, "DeepseekV3", "deepseek_v3") | {"rope_interleave": interleave}


def rules(config: ModelConfig) -> list[Entry]:
    return latent.rules(config)
