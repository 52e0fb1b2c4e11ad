"""Zamba (arXiv:2405.16712): Mamba with heads, and before some layers one shared transformer, whose output only that Mamba reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.errors import require
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, shared_transformer, state_spaces
from zoo.convert.shared.layers import Place
from zoo.convert.weight_map import Entry, Rule
from zoo.convert.weight_ops import Concat

MODEL_TYPES = ("zamba",)
MODELS = ("zamba_7b",)
UNREAD = ("time_step_min",)
DEFAULTS: dict[str, Any] = {
    "vocab_size": 32000,
    "tie_word_embeddings": True,
    "hidden_size": 3712,
    "attention_hidden_size": None,
    "intermediate_size": 14848,
    "num_hidden_layers": 76,
    "num_attention_heads": 16,
    "attention_head_dim": None,
    "num_key_value_heads": 16,
    "n_mamba_heads": 2,
    "hidden_act": "gelu",
    "hidden_mamba_act": "silu",
    "rms_norm_eps": 1e-5,
    "attn_layer_period": 6,
    "attn_layer_offset": 4,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_dt_rank": "auto",
    "mamba_conv_bias": True,
    "mamba_proj_bias": False,
    "layers_block_type": None,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = shared_transformer.read(hf, DEFAULTS)
    dense.refuse(hf, hidden_mamba_act="silu")
    period, offset = hf["attn_layer_period"], hf["attn_layer_offset"]
    later = ["hybrid" if i % period == offset else "linear_attention" for i in range(hf["num_hidden_layers"] - 3)]
    kinds = hf["layers_block_type"] or ["linear_attention", "linear_attention", "hybrid", *later]
    return dense.model(hf, shared_transformer.sublayers(kinds, [shared_transformer.transformer(hf)], space(hf)))


def space(hf: Mapping[str, Any]) -> dict[str, Any]:
    """The Mamba of a config.json."""
    return {
        "type": "mamba1",
        "d_state": hf["mamba_d_state"],
        "n_heads": hf["n_mamba_heads"],
        "expand": float(hf["mamba_expand"]),
        "conv": hf["mamba_d_conv"],
        "conv_bias": bool(hf["mamba_conv_bias"]),
        "bias": bool(hf["mamba_proj_bias"]),
        "dt_rank": None if hf["mamba_dt_rank"] == "auto" else hf["mamba_dt_rank"],
    }


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = shared_transformer.layers(config, "zamba", "mamba1")
    mixer, _ = shared_transformer.first(layers)
    uses = sum(layer.transformer is not None for layer in layers)
    require(uses > 1, "pattern", config.pattern, "zamba's class in transformers takes no model with one shared_transformer", "use it again")
    return shared_transformer.to_hf(config, "Zamba", "zamba", layers) | {
        "n_mamba_heads": mixer.n_heads,
        "mamba_dt_rank": mixer.dt_rank,
        "mamba_conv_bias": mixer.conv_bias,
        "mamba_proj_bias": mixer.bias,
    }


def rules(config: ModelConfig) -> list[Entry]:
    def space_rules(place: Place, hf: str) -> list[Rule]:
        mixer: Any = place.config
        return state_spaces.headed_rules(place.weights, hf, mixer.n_heads, mixer.inner(config.d_model))

    return shared_transformer.rules(config, shared_transformer.layers(config, "zamba", "mamba1"), "shared_transf", space_rules, own_rules)


def own_rules(place: Place, hf: str, uses: list[int]) -> list[Rule]:
    """Gate and up, which the checkpoint holds apart."""
    config: Any = place.config
    names = [f"{hf}.feed_forward.{name}_proj.weight" for name in ("gate", "up")]
    return [Rule(f"{place.weights}.gate_up.weight", names, Concat((config.hidden, config.hidden)))]
