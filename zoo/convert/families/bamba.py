"""Bamba (IBM, Princeton and UIUC): Mamba-2 layers and a few of attention that rotates half of a head, SwiGLU in each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, experts, hybrid, rope
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("bamba",)
MODELS = ("bamba_9b",)
DEFAULTS: dict[str, Any] = {
    **hybrid.MAMBA,
    "vocab_size": 128000,
    "tie_word_embeddings": False,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "attn_layer_indices": None,
    "attention_bias": False,
    "mlp_bias": False,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS) | {"partial_rotary_factor": 0.5}
    dense.refuse(hf | {"hidden_act": dense.activation(hf["hidden_act"])}, hidden_act="silu")
    attention = dense.attention(hf, rope.to_zoo(hf, 10000.0, partial=True))
    space, attends = hybrid.dual(hf), hf["attn_layer_indices"] or ()
    n = hf["num_hidden_layers"]
    mixers = [attention if layer in attends else space for layer in range(n)]
    return dense.model(hf, hybrid.sublayers(mixers, [dense.gated(hf)] * n))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = hybrid.Layers(config, "bamba", "mamba2", ("swiglu",))
    channel = layers.pairs[0][1]
    return (
        layers.to_hf(config, "Bamba", "bamba", channel)
        | hybrid.dual_to_hf(layers.space, config.d_model)
        | {
            "mlp_bias": channel.bias,
            "attn_layer_indices": [layer for layer, attends in enumerate(layers.attends) if attends],
            "rope_parameters": {"partial_rotary_factor": 1.0} | rope.to_hf(layers.attention.rope),
        }
    )


def rules(config: ModelConfig) -> list[Entry]:
    entries = hybrid.surroundings(config)
    for layer, mixer, channel in experts.pairs(config):
        hf = f"model.layers.{layer}"
        entries += [*hybrid.mixer_rules(mixer, hf), *dense.gated_rules(channel, f"{hf}.feed_forward")]
    return entries
