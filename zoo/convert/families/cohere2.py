"""Cohere Command R7B and A (arXiv:2504.00698): attention and the channel mixer side by side on one norm without bias; rotary positions, in
adjacent pairs, only on layers with a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, rope
from zoo.convert.shared.layers import only
from zoo.convert.weight_map import Entry, Rule

MODEL_TYPES = ("cohere2",)
MODELS = ("command_r7b",)
DEFAULTS = {
    "vocab_size": 256000,
    "hidden_size": 8192,
    "intermediate_size": 22528,
    "logit_scale": 0.0625,
    "num_hidden_layers": 40,
    "num_attention_heads": 64,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "layer_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "sliding_window": 4096,
    "sliding_window_pattern": 4,
    "layer_types": None,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    turns = rope.to_zoo(hf, 10000.0, pairs="adjacent")
    windows = dense.windows(hf, dense.periodic(hf, hf["sliding_window_pattern"]))
    channel = dense.gated(hf)
    sublayers = [[dense.attention(hf, None if window is None else turns, window=window), channel] for window in windows]
    surroundings = {"norm": "layernorm_unbiased", "norm_eps": hf["layer_norm_eps"], "logit_scale": float(hf["logit_scale"])}
    return dense.model(hf, sublayers, **surroundings)


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = [(attention, channel) for attention, channel in only(config, "cohere2", "gqa|swiglu")]
    turns = next((attention.rope for attention, _ in layers if attention.rope is not None), None)
    common = dense.to_hf(config, "Cohere2", "cohere2", layers) | dense.windowed(layers)
    return common | {
        "layer_norm_eps": common.pop("rms_norm_eps"),
        "logit_scale": config.logit_scale,
        "rope_parameters": rope.to_hf(turns),
    }


def rules(config: ModelConfig) -> list[Entry]:
    entries = dense.ends(config)
    for layer, (attention, channel) in enumerate(dense.resolved(config)):
        hf = f"model.layers.{layer}"
        entries += [*dense.attention_rules(attention, f"{hf}.self_attn"), *dense.gated_rules(channel, f"{hf}.mlp")]
        entries.append(Rule(f"stack.norms.{layer}.weight", f"{hf}.input_layernorm.weight"))
    return entries
