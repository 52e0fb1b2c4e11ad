"""A model from its folder: a run, a checkpoint, an imported model, or what Hugging Face keeps, on this disk or on the hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blocks.errors import ConfigError
from zoo.config.model import ModelConfig, load_model
from zoo.config.schema import load_yaml, nested
from zoo.convert import checkpoint
from zoo.convert.hf_folder import is_foreign, read_headers, resolve
from zoo.model.model import Model
from zoo.weights.safetensors_io import CONFIG, Tensors, assemble, find_weights


def load(path: str | Path, overrides: Mapping[str, Any] | None = None, *, dtype: torch.dtype | None = torch.float32) -> Model:
    """The model of a run folder, a checkpoint folder, a .safetensors file whose config.yaml lies beside it or one folder up, a folder of
    Hugging Face (config.json and .safetensors) or a hub id (owner/name).

    On the CPU, in eval mode. config.yaml is a run's (with `model:`) or a model's. `overrides` are keys of the model to change, dotted
    or nested: {"blocks.M.retention": 0.9999}. dtype: of the weights, however they are stored; None: as they are. Raises ConfigError
    where a file is missing or the weights are not exactly this model's.
    """
    place, changes = resolve(path), nested(overrides or {})
    if is_foreign(place):
        values, tensors = checkpoint.read(place)
        return assemble(load_model(values, changes), tensors, str(place), dtype)
    weights = find_weights(place)
    return assemble(_config_of(weights, changes), dict(Tensors([weights])), str(weights), dtype)


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """The weights of what `load` takes, by the zoo's names, as they are stored. No config.yaml is needed. Raises ConfigError."""
    place = resolve(path)
    return checkpoint.read(place)[1] if is_foreign(place) else dict(Tensors([find_weights(place)]))


def read_shapes(path: str | Path) -> dict[str, Tensor]:
    """What `load_tensors` would give, as tensors without numbers (device meta): only the files' headers are read. Raises ConfigError."""
    folder = resolve(path)
    return checkpoint.read(folder, read_headers)[1] if is_foreign(folder) else Tensors([find_weights(folder)]).shapes()


def home(path: Path) -> Path:
    """The folder of the config that belongs to a local path: itself, or the one above of a checkpoint or a file. Without a config, the
    path's own folder."""
    folder = path if path.is_dir() else path.parent
    return next((place for place in (folder, folder.parent) if (place / CONFIG).is_file()), folder)


def _config_of(weights: Path, overrides: Mapping[str, Any]) -> ModelConfig:
    path = home(weights) / CONFIG
    if not path.is_file():
        raise ConfigError(str(weights), None, f"there is no {CONFIG} beside it or one folder up", "it says which model the weights are of")
    values = load_yaml(path)
    model = values.get("model", values)
    if not isinstance(model, Mapping):
        raise ConfigError(f"{path}: model", model, "must be a mapping")
    try:
        return load_model(model, overrides)
    except ConfigError as error:
        raise error.within(f"{path}: model" if "model" in values else str(path)) from None
