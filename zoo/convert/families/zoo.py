"""Every zoo model as it is: config.json holds the model's mapping. `import zoo.hf` lets transformers read it."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import torch

from blocks.errors import ConfigError, require
from zoo.config.model import ModelConfig, load_model, model_mapping
from zoo.convert.weight_map import Entry, Rule
from zoo.model.model import Model
from zoo.weights.safetensors_io import weights_of

MODEL_TYPES = ("zoo",)
CLASS = "ZooForCausalLM"
PREFIX = "model."  # of every tensor's name: the class holds the model as `model`


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    return model_mapping(read(hf.get("model")))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    return {"model_type": MODEL_TYPES[0], "architectures": [CLASS], **sizes(config), "model": _json(model_mapping(config))}


def rules(config: ModelConfig) -> list[Entry]:
    with torch.device("meta"):
        return [Rule(name, PREFIX + name) for name in weights_of(Model(config))]


def read(values: Any) -> ModelConfig:
    """The ModelConfig of the mapping in a config.json. Raises ConfigError, also where a plugin that it names is not imported yet: a
    file from elsewhere must not decide what is imported."""
    require(isinstance(values, Mapping), "model", values, "must be a mapping, as a model's YAML holds it")
    for name in values.get("plugins") or ():
        if name not in sys.modules:
            remedy = f"first: import {name}, or --plugin {name}"
            raise ConfigError("model.plugins", name, "is not imported, and no checkpoint may have it imported", remedy)
    try:
        return load_model(values)
    except ConfigError as error:
        raise error.within("model") from None


def sizes(config: ModelConfig) -> dict[str, Any]:
    """What tools expect in any config.json. No head is written for tied embeddings, so there is nothing that transformers should tie."""
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": len(config.layers),
        "max_position_embeddings": config.positions,
        "tie_word_embeddings": False,
    }


def _json(value: Any) -> Any:
    """The same without numbers that JSON has not: infinity as text, which a model's YAML may hold too."""
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
