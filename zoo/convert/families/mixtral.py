"""Mixtral (arXiv:2401.04088): Mistral with a mixture of experts in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks import swiglu
from zoo.config.model import ModelConfig
from zoo.convert.families import mistral
from zoo.convert.shared import dense, experts, rope
from zoo.convert.shared.layers import only
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("mixtral",)
MODELS = ("mixtral_8x7b",)
DEFAULTS: dict[str, Any] = mistral.DEFAULTS | {
    "max_position_embeddings": 4096 * 32,
    "rms_norm_eps": 1e-5,
    "sliding_window": None,
    "num_experts_per_tok": 2,
    "num_local_experts": 8,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS, {"num_experts": "num_local_experts"})
    experts.silu(hf)
    attention = dense.attention(hf, rope.to_zoo(hf, 1e6), window=hf["sliding_window"])
    sizes = {"n_experts": hf["num_local_experts"], "top_k": hf["num_experts_per_tok"], "hidden": hf["intermediate_size"]}
    return dense.model(hf, dense.pairs([attention] * hf["num_hidden_layers"], {"type": "moe", **sizes}))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = [(a, m) for a, m in only(config, "mixtral", "gqa", "moe")]
    attention, moe = layers[0]
    channels = [(a, swiglu.Config(hidden=moe.hidden)) for a, _ in layers]
    sizes = {"num_local_experts": moe.n_experts, "num_experts_per_tok": moe.top_k, "sliding_window": attention.window}
    return dense.to_hf(config, "Mixtral", "mixtral", channels) | sizes


def rules(config: ModelConfig) -> list[Entry]:
    entries = experts.surroundings(config)
    for layer, attention, channel in experts.pairs(config):
        hf = f"model.layers.{layer}"
        entries += dense.attention_rules(attention, f"{hf}.self_attn")
        entries += experts.expert_rules(channel, f"{hf}.block_sparse_moe.experts", ("w1", "w3", "w2"))
        entries += experts.router_rules(channel, f"{hf}.block_sparse_moe.gate")
    return entries
