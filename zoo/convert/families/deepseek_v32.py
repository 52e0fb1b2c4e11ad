"""DeepSeek-V3.2 (arXiv:2512.02556): DeepSeek-V3 with an indexer, so that each token attends to a few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.model import ModelConfig
from zoo.convert.families import deepseek_v3
from zoo.convert.shared import dense, latent
from zoo.convert.shared.experts import only
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("deepseek_v32",)
MODELS = ("deepseek_v32",)
UNREAD = ("head_dim", "mlp_bias")
DEFAULTS: dict[str, Any] = {key: value for key, value in deepseek_v3.DEFAULTS.items() if key != "rope_interleave"} | {
    "max_position_embeddings": 163840,
    "mlp_layer_types": None,
    "index_topk": 2048,
    "index_head_dim": 128,
    "index_n_heads": 64,
}
ALIASES = {"num_local_experts": "n_routed_experts", "num_experts": "n_routed_experts"}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS, ALIASES)
    return latent.model(hf, latent.attention(hf) | latent.indexer(hf, pairs="halves"), latent.mixture(hf))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    return latent.to_hf(config, "DeepseekV32", "deepseek_v32") | latent.index_to_hf(only(config, "deepseek_v32", "mla"))


def rules(config: ModelConfig) -> list[Entry]:
    return latent.rules(config)
