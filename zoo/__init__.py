"""Assembly and instruments: pattern -> model, ledger, matching, tasks, measures. The names below are the public surface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blocks.errors import ConfigError
from blocks.state import detach, map_state, state_bytes
from zoo.config.model import ModelConfig, load_model
from zoo.convert.model_folder import load
from zoo.ledger.match import match
from zoo.model.model import Model
from zoo.model.model import build as _build

__all__ = ["ConfigError", "Model", "ModelConfig", "build", "detach", "load", "load_model", "map_state", "match", "state_bytes"]


def build(config: ModelConfig | Mapping[str, Any] | str | Path, seed: int = 0) -> Model:
    """A model from a config, a mapping or a YAML path, weights drawn from `seed`. Raises ConfigError."""
    return _build(config if isinstance(config, ModelConfig) else load_model(config), seed)
