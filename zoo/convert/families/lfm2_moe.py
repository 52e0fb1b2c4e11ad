"""LFM2 with experts: dense layers first, then mixtures that a sigmoid with a selection bias chooses from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks import swiglu
from zoo.config.model import ModelConfig
from zoo.convert.families import lfm2
from zoo.convert.shared import dense, experts
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("lfm2_moe",)
MODELS = ("lfm2_8b_a1b",)
DEFAULTS: dict[str, Any] = lfm2.MIXERS | {
    "hidden_size": 2048,
    "intermediate_size": 7168,
    "moe_intermediate_size": 1792,
    "num_dense_layers": 2,
    "num_experts_per_tok": 4,
    "num_experts": 32,
    "use_expert_bias": True,
    "routed_scaling_factor": 1.0,
    "norm_topk_prob": True,
}
NORMALIZE_EPS = 1e-6  # of the class


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    moe = {
        "type": "moe",
        "n_experts": hf["num_experts"],
        "top_k": hf["num_experts_per_tok"],
        "hidden": hf["moe_intermediate_size"],
        "scores": "sigmoid",
        "selection_bias": bool(hf["use_expert_bias"]),
        "routed_scale": float(hf["routed_scaling_factor"]),
        **({"normalize_eps": NORMALIZE_EPS} if hf["norm_topk_prob"] else {"normalize": False}),
    }
    plain, n = {"type": "swiglu", "hidden": hf["intermediate_size"]}, hf["num_hidden_layers"]
    types = hf["layer_types"] or ["full_attention"] * n
    return lfm2.model(hf, types, [plain if i < hf["num_dense_layers"] else moe for i in range(n)])


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = experts.only(config, "lfm2_moe", "gqa", "gated_conv")
    moe, plain = experts.mixture(config, layers, "lfm2_moe"), experts.first(layers, swiglu.Config)
    channel = swiglu.Config(hidden=moe.hidden) if plain is None else plain
    return lfm2.common_to_hf(config, layers, "Lfm2Moe", "lfm2_moe", channel) | {
        "moe_intermediate_size": moe.hidden,
        "num_dense_layers": [experts.is_moe(channel) for _, channel in layers].index(True),
        "num_experts_per_tok": moe.top_k,
        "num_experts": moe.n_experts,
        "use_expert_bias": moe.selection_bias,
        "routed_scaling_factor": moe.routed_scale,
        "norm_topk_prob": moe.normalize,
    }


def rules(config: ModelConfig) -> list[Entry]:
    return lfm2.rules(config)
