"""Weights in and out of .safetensors, and a trained model from its folder. Nothing is unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from blocks.base import ConfigError
from zoo.config import ModelConfig, load_model
from zoo.model import Model, build
from zoo.schema import load_yaml, nested

WEIGHTS = "model.safetensors"
CONFIG = "config.yaml"
CHECKPOINTS = ("checkpoint", "checkpoint.next")  # the second holds the newer one while the two are exchanged


def load(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Model:
    """The model of a run folder, a checkpoint folder, or a .safetensors file whose config.yaml lies beside it or one folder up.

    On the CPU, in eval mode. config.yaml is a run's (with `model:`) or a model's. `overrides` are keys of the model to change, dotted
    or nested: {"blocks.M.retention": 0.9999}. Raises ConfigError where a file is missing or the weights are not exactly this model's.
    """
    weights = find_weights(Path(path))
    model = build(_config_of(weights, nested(overrides or {})))
    put_weights(model, read_tensors(weights), str(weights))
    return model.eval()


def find_weights(path: Path) -> Path:
    """The .safetensors file that a path means. Raises ConfigError."""
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ConfigError(str(path), None, "is not a .safetensors file", "a run folder, a checkpoint folder, or a .safetensors file")
        return path
    for folder in (path, *(path / name for name in CHECKPOINTS)):
        if (folder / WEIGHTS).is_file():
            return folder / WEIGHTS
    if not path.exists():
        raise ConfigError(str(path), None, "there is no such folder or file")
    raise ConfigError(str(path), None, f"holds no {WEIGHTS} and no checkpoint", "has this run been trained?")


def _config_of(weights: Path, overrides: Mapping[str, Any]) -> ModelConfig:
    for folder in (weights.parent, weights.parent.parent):
        if (folder / CONFIG).is_file():
            values = load_yaml(folder / CONFIG)
            model = values.get("model", values)
            if not isinstance(model, Mapping):
                raise ConfigError(f"{folder / CONFIG}: model", model, "must be a mapping")
            try:
                return load_model(model, overrides)
            except ConfigError as error:
                raise error.within(f"{folder / CONFIG}: model" if "model" in values else str(folder / CONFIG)) from None
    raise ConfigError(str(weights), None, f"there is no {CONFIG} beside it or one folder up", "it says which model the weights are of")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file. Raises ConfigError if it is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(str(path), None, f"can't be read: {error}") from None


def weights_of(model: Model) -> dict[str, Tensor]:
    """The parameters and buffers by name, each once, however many modules share it."""
    shared = {id(t) for t in (*model.parameters(), *model.buffers())}
    found: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in shared:
            shared.discard(id(tensor))
            found[name] = tensor.detach()
    return found


def save_weights(model: Model, path: Path) -> None:
    """Write the model's weights as .safetensors."""
    save_file({name: tensor.contiguous() for name, tensor in weights_of(model).items()}, path)


def put_weights(model: Model, tensors: Mapping[str, Tensor], place: str) -> None:
    """Copy tensors into the model. Raises ConfigError (place = the file) at a missing, unknown or differently shaped one."""
    own = weights_of(model)
    missing, unknown = [n for n in own if n not in tensors], [n for n in tensors if n not in own]
    if missing:
        raise ConfigError(place, None, f"lacks {_some(missing)}", f"it has besides: {_some(unknown)}" if unknown else "")
    if unknown:
        raise ConfigError(place, None, f"holds what the model has not: {_some(unknown)}")
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise ConfigError(place, None, f"{name} is {list(tensors[name].shape)}, the model's is {list(tensor.shape)}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
