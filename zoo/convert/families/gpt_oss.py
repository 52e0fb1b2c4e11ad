"""gpt-oss (arXiv:2508.10925): a learned sink logit a head, windows in every other layer, experts with clamped SwiGLUs and biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks import swiglu
from blocks.errors import require
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, experts, rope
from zoo.convert.shared.layers import only
from zoo.convert.weight_map import Entry, Rule
from zoo.convert.weight_ops import Permute

MODEL_TYPES = ("gpt_oss",)
MODELS = ("gpt_oss_20b",)
UNREAD = ("hidden_act",)
DEFAULTS: dict[str, Any] = {
    "num_hidden_layers": 36,
    "num_local_experts": 128,
    "vocab_size": 201088,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "head_dim": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "sliding_window": 128,
    "tie_word_embeddings": False,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "num_experts_per_tok": 4,
    "swiglu_alpha": 1.702,
    "swiglu_limit": 7.0,
    "attention_bias": True,
    "layer_types": None,
}
YARN = {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS, {"num_experts": "num_local_experts"})
    if not (hf.get("rope_parameters") or hf.get("rope_scaling")):
        hf["rope_parameters"] = YARN | {"original_max_position_embeddings": 4096}
    n = hf["num_hidden_layers"]
    types = hf["layer_types"] or ["full_attention" if i % 2 else "sliding_attention" for i in range(n)]
    turned = rope.to_zoo(hf, 150000.0)
    attentions = [dense.attention(hf, turned, window=window, sink_logit=True) for window in dense.windows(hf, types)]
    moe = {
        "type": "moe",
        "n_experts": hf["num_local_experts"],
        "top_k": hf["num_experts_per_tok"],
        "hidden": hf["intermediate_size"],
        "activation": "clamped_swiglu",
        "alpha": float(hf["swiglu_alpha"]),
        "limit": float(hf["swiglu_limit"]),
        "bias": True,
        "router_bias": True,
    }
    return dense.model(hf, dense.pairs(attentions, moe))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = [(a, m) for a, m in only(config, "gpt_oss", "gqa", "moe")]
    attention, moe = layers[0]
    scaling = None if attention.rope is None else attention.rope.scaling
    require(attention.rope is not None, "rope", None, "gpt_oss has rotary positions")
    channels = [(a, swiglu.Config(hidden=moe.hidden)) for a, _ in layers]
    exact = {"rope_parameters": rope.to_hf(attention.rope) | ({"truncate": scaling.truncate} if scaling is not None else {})}
    return (
        dense.to_hf(config, "GptOss", "gpt_oss", channels)
        | dense.windowed(layers)
        | {
            "num_local_experts": moe.n_experts,
            "num_experts_per_tok": moe.top_k,
            "swiglu_alpha": moe.alpha,
            "swiglu_limit": moe.limit,
            **exact,
        }
    )


def rules(config: ModelConfig) -> list[Entry]:
    entries = experts.surroundings(config)
    for layer, attention, channel in experts.pairs(config):
        hf, moe = f"model.layers.{layer}", f"model.layers.{layer}.mlp"
        entries += dense.attention_rules(attention, f"{hf}.self_attn")
        entries.append(Rule(f"{attention.weights}.sinks", f"{hf}.self_attn.sinks"))
        width: int = 2 * channel.config.hidden  # type: ignore[attr-defined]
        halves = Permute((*range(0, width, 2), *range(1, width, 2)), dim=1)  # gate and up in turn
        entries += [*experts.stacked_rules(channel, f"{moe}.experts", halves), *experts.router_rules(channel, f"{moe}.router")]
    return entries
