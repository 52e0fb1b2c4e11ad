"""Qwen3 (arXiv:2505.09388): Llama with a norm of each query and key head, windows on the last layers if any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, rope
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("qwen3",)
MODELS = ("qwen3_8b",)
DEFAULTS = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "layer_types": None,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    hf["sliding_window"] = hf["sliding_window"] if hf["use_sliding_window"] else None
    late = "full_attention" if hf["sliding_window"] is None else "sliding_attention"
    kinds = ["full_attention" if i < hf["max_window_layers"] else late for i in range(hf["num_hidden_layers"])]
    norm = {"qk_norm": "head", "norm_eps": hf["rms_norm_eps"]}
    turns = rope.to_zoo(hf, 10000.0)
    attentions = [dense.attention(hf, turns, window=window, **norm) for window in dense.windows(hf, hf["layer_types"] or kinds)]
    return dense.model(hf, dense.pairs(attentions, dense.gated(hf)))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = dense.layers(config, "qwen3")
    windows = dense.windowed(layers)
    more = {"use_sliding_window": windows["sliding_window"] is not None, "max_window_layers": len(layers)}
    return dense.to_hf(config, "Qwen3", "qwen3", layers) | windows | more


def rules(config: ModelConfig) -> list[Entry]:
    return dense.rules(config)
