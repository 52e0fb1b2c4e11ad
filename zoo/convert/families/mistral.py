"""Mistral (arXiv:2310.06825): Llama with a window on every layer, or on none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, rope
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("mistral",)
MODELS = ("sliding_window", "mistral_7b")
DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "sliding_window": 4096,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    attention = dense.attention(hf, rope.to_zoo(hf, 10000.0), window=hf["sliding_window"])
    return dense.model(hf, dense.pairs([attention] * hf["num_hidden_layers"], dense.gated(hf)))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = dense.layers(config, "mistral")
    return dense.to_hf(config, "Mistral", "mistral", layers) | {"sliding_window": layers[0][0].window}


def rules(config: ModelConfig) -> list[Entry]:
    return dense.rules(config)
