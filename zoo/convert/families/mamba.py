"""Mamba (arXiv:2312.00752): one mixer a layer and no channel mixer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from blocks.errors import require
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, state_spaces
from zoo.convert.shared.layers import only
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("mamba",)
MODELS = ("mamba1", "mamba_2b8")
UNREAD = ("time_step_min",)
DEFAULTS: dict[str, Any] = {
    **state_spaces.SURROUNDINGS,
    "vocab_size": 50280,
    "hidden_size": 768,
    "intermediate_size": None,
    "state_size": 16,
    "num_hidden_layers": 32,
    "time_step_rank": "auto",
    "tie_word_embeddings": True,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    return state_spaces.model(hf, state_spaces.mixer(hf, "mamba1", expand=growth(hf), dt_rank=rank(hf)))


def growth(hf: Mapping[str, Any]) -> float:
    """Inner channels over the model's width: of intermediate_size where config.json says it (Falcon-Mamba 7B: beside another expand)."""
    inner, width = hf["intermediate_size"], hf["hidden_size"]
    if inner is None:
        return float(hf["expand"])
    whole = isinstance(inner, int) and not isinstance(inner, bool) and inner >= 1
    require(whole, "intermediate_size", inner, "must be a whole number above 0")
    share = inner / width
    return share if int(share * width) == inner else math.nextafter(share, math.inf)


def rank(hf: Mapping[str, Any]) -> int | None:
    """The width of dt'; None = as both sides derive it from the model's width."""
    return None if hf["time_step_rank"] == "auto" else hf["time_step_rank"]


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = only(config, "mamba", "mamba1")
    (mixer,) = layers[0]
    return state_spaces.to_hf(config, "Mamba", "mamba", len(layers), mixer) | sizes(config, mixer)


def sizes(config: ModelConfig, mixer: Any) -> dict[str, Any]:
    """The keys of config.json about inner widths."""
    return {"intermediate_size": mixer.inner(config.d_model), "time_step_rank": mixer.dt_rank}


def rules(config: ModelConfig) -> list[Entry]:
    mixers = state_spaces.mixers(config)
    return [*state_spaces.ends(config), *(rule for place, hf in mixers for rule in state_spaces.selective_rules(place.weights, hf))]
