"""The text model of Qwen3.5 with experts: Qwen3.5's mixers, and Qwen3-Next's mixture in every layer. The vision tower is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks import swiglu
from zoo.config.model import ModelConfig
from zoo.convert.families import qwen3_5, qwen3_next
from zoo.convert.shared import delta, dense, experts
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("qwen3_5_moe_text", "qwen3_5_moe")
MODELS = ("qwen3_5_35b_a3b",)
DEFAULTS: dict[str, Any] = {key: value for key, value in qwen3_5.DEFAULTS.items() if key != "intermediate_size"} | {
    "hidden_size": 2048,
    "num_hidden_layers": 40,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
    "num_experts_per_tok": 8,
    "num_experts": 256,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(dense.text(hf, "qwen3_5_moe"), DEFAULTS)
    moe = qwen3_next.mixture(hf | {"norm_topk_prob": True})
    return qwen3_next.model(hf, dense.pairs(qwen3_next.mixers(hf), moe))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = experts.only(config, "qwen3_5_moe", "gqa", "gated_delta")
    moe = experts.mixture(config, layers, "qwen3_5_moe")
    common = qwen3_next.common_to_hf(config, layers, "Qwen3_5Moe", "qwen3_5_moe_text", swiglu.Config(hidden=moe.hidden))
    return {key: value for key, value in common.items() if key != "intermediate_size"} | qwen3_next.mixture_to_hf(moe)


def rules(config: ModelConfig) -> list[Entry]:
    return delta.seeing(delta.rules(config, delta.split_rules))
