"""DeepSeek-V2 (arXiv:2405.04434): latent attention, then experts that a softmax chooses, by itself or within the best groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.errors import one_of
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, experts, latent
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("deepseek_v2",)
MODELS = ("deepseek_v2_lite",)
UNREAD = ("head_dim", "norm_topk_prob")
DEFAULTS: dict[str, Any] = {
    "vocab_size": 102400,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "moe_intermediate_size": 1407,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "n_shared_experts": 2,
    "n_routed_experts": 64,
    "routed_scaling_factor": 1.0,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "qk_nope_head_dim": 128,
    "topk_method": "greedy",
    "num_key_value_heads": None,
    "num_experts_per_tok": None,
    "n_group": None,
    "topk_group": None,
    "first_k_dense_replace": 0,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS, {"num_experts": "n_routed_experts"})
    dense.refuse(hf, mlp_bias=False)  # the class gives the shared experts biases, and the others none
    one_of("topk_method", hf["topk_method"], ("greedy", "group_limited_greedy"))
    mixture = latent.mixture(hf | {"norm_topk_prob": False})  # transformers never normalises here
    for name in ("groups", "top_groups", "selection_bias"):
        mixture.pop(name, None)
    mixture |= {"scores": "softmax"}
    if hf["topk_method"] != "greedy":
        mixture |= latent.grouped(hf) | {"group_score": "max"}
    return latent.model(hf, latent.attention(hf), mixture)


def to_hf(config: ModelConfig) -> dict[str, Any]:
    moe = experts.mixture(config, experts.only(config, "deepseek_v2", "mla"), "deepseek_v2")
    method = "greedy" if moe.groups == 1 else "group_limited_greedy"
    return latent.to_hf(config, "DeepseekV2", "deepseek_v2") | {"topk_method": method}


def rules(config: ModelConfig) -> list[Entry]:
    return latent.rules(config)
