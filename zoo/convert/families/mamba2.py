"""Mamba-2 (arXiv:2405.21060): one mixer a layer and no channel mixer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from blocks.errors import require
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, state_spaces
from zoo.convert.shared.layers import only
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("mamba2",)
MODELS = ("mamba2", "mamba2_2b7")
UNREAD = ("time_step_min", "time_step_rank")
DEFAULTS: dict[str, Any] = {
    **state_spaces.SURROUNDINGS,
    "vocab_size": 32768,
    "hidden_size": 4096,
    "state_size": 128,
    "num_hidden_layers": 64,
    "num_heads": 128,
    "head_dim": 64,
    "n_groups": 8,
    "time_step_limit": (0.0, math.inf),
    "tie_word_embeddings": False,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    heads, channels = hf["num_heads"], hf["expand"] * hf["hidden_size"]
    require(heads * hf["head_dim"] == channels, "num_heads", heads, f"times head_dim must be expand * hidden_size = {channels}")
    limit = [number(value) for value in hf["time_step_limit"]]
    sizes = {"head_dim": hf["head_dim"], "n_groups": hf["n_groups"], "norm_eps": hf["layer_norm_epsilon"], "dt_limit": limit}
    return state_spaces.model(hf, state_spaces.mixer(hf, "mamba2", **sizes))


def number(value: Any) -> float:
    """A float of config.json, where infinity may be written {"__float__": "Infinity"}."""
    return float(value["__float__"] if isinstance(value, Mapping) else value)


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = only(config, "mamba2", "mamba2")
    (mixer,) = layers[0]
    return state_spaces.to_hf(config, "Mamba2", "mamba2", len(layers), mixer) | {
        "num_heads": mixer.inner(config.d_model) // mixer.head_dim,
        "head_dim": mixer.head_dim,
        "n_groups": mixer.n_groups,
        "time_step_limit": list(mixer.dt_limit),
    }


def rules(config: ModelConfig) -> list[Entry]:
    return [
        *state_spaces.ends(config),
        *(rule for place, hf in state_spaces.mixers(config) for rule in state_spaces.dual_rules(place.weights, hf)),
    ]
