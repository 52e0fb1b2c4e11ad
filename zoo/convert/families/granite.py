"""Granite (IBM): Llama with factors of the embeddings, the residuals, the scores and the logits (muP, arXiv:2203.03466)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.model import ModelConfig
from zoo.convert.families import llama
from zoo.convert.shared import dense, rope
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("granite",)
MODELS = ("granite_2b",)
DEFAULTS = llama.DEFAULTS | {
    "embedding_multiplier": 1.0,
    "logits_scaling": 1.0,
    "residual_multiplier": 1.0,
    "attention_multiplier": 1.0,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    attention = dense.attention(hf, rope.to_zoo(hf, 10000.0), scale=float(hf["attention_multiplier"]))
    factors = {
        "embedding_scale": float(hf["embedding_multiplier"]),
        "residual_scale": float(hf["residual_multiplier"]),
        "logit_scale": 1 / hf["logits_scaling"],
    }
    return dense.model(hf, dense.pairs([attention] * hf["num_hidden_layers"], dense.gated(hf)), **factors)


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = dense.layers(config, "granite")
    return dense.to_hf(config, "Granite", "granite", layers) | {
        "mlp_bias": layers[0][1].bias,
        "embedding_multiplier": config.embedding_scale,
        "residual_multiplier": config.residual_scale,
        "attention_multiplier": layers[0][0].scale,
        "logits_scaling": 1 / config.logit_scale,
    }


def rules(config: ModelConfig) -> list[Entry]:
    return dense.rules(config)
