"""The text model of Qwen3.5: Qwen3-Next's mixers with separate projections, dense channel mixers. Of a checkpoint that also sees the text
model is read, its vision tower left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.model import ModelConfig
from zoo.convert.families import qwen3_next
from zoo.convert.shared import delta, dense, experts
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("qwen3_5_text", "qwen3_5")
MODELS = ("qwen3_5_9b",)
SPARSE = (  # keys of Qwen3-Next's experts
    *("decoder_sparse_step", "moe_intermediate_size", "shared_expert_intermediate_size"),
    *("num_experts_per_tok", "num_experts", "norm_topk_prob", "mlp_only_layers"),
)
DEFAULTS: dict[str, Any] = {key: value for key, value in qwen3_next.DEFAULTS.items() if key not in SPARSE} | {
    "vocab_size": 248320,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 32,
    "num_key_value_heads": 4,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(dense.text(hf, "qwen3_5"), DEFAULTS)
    experts.silu(hf)
    return qwen3_next.model(hf, dense.pairs(qwen3_next.mixers(hf), dense.gated(hf)))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = experts.only_dense(config, "qwen3_5", "gqa", "gated_delta")
    return qwen3_next.common_to_hf(config, layers, "Qwen3_5", "qwen3_5_text", layers[0][1])


def rules(config: ModelConfig) -> list[Entry]:
    return delta.seeing(delta.rules(config, delta.split_rules))
