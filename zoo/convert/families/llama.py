"""Llama (arXiv:2302.13971, 2407.21783): RMS norms before the sub-layers, grouped heads, SwiGLU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, rope
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("llama",)
MODELS = ("transformer", "llama3_8b")
DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    attention = dense.attention(hf, rope.to_zoo(hf, 10000.0))
    return dense.model(hf, dense.pairs([attention] * hf["num_hidden_layers"], dense.gated(hf)))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = dense.layers(config, "llama")
    return dense.to_hf(config, "Llama", "llama", layers) | {"mlp_bias": layers[0][1].bias}


def rules(config: ModelConfig) -> list[Entry]:
    return dense.rules(config)
