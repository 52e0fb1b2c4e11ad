"""One file a family of checkpoints, found by being there; zoo/convert/__init__.py says what it holds."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any, Protocol, cast

from blocks.errors import ConfigError, one_of
from zoo.config.model import ModelConfig
from zoo.convert.weight_map import Entry


class Family(Protocol):
    """What a family's file holds."""

    MODEL_TYPES: tuple[str, ...]

    def to_zoo(self, hf: Mapping[str, Any]) -> dict[str, Any]: ...

    def to_hf(self, config: ModelConfig) -> dict[str, Any]: ...

    def rules(self, config: ModelConfig) -> Sequence[Entry]: ...


def names() -> list[str]:
    """The families, by name."""
    return list(_names())


def family(name: str) -> Family:
    """The family of a name. Raises ConfigError."""
    one_of("family", name, _names())
    return cast(Family, importlib.import_module(f"{__name__}.{name}"))


def of_model_type(model_type: str) -> Family:
    """The family that reads a model_type. Raises ConfigError."""
    types = {kind: name for name in _names() for kind in family(name).MODEL_TYPES}
    if model_type not in types:
        near = get_close_matches(model_type, list(types), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError("model_type", model_type, "is of no known family", f"{hint}Known: {', '.join(sorted(types))}")
    return family(types[model_type])


def of_models() -> dict[str, str]:
    """The family whose class in transformers computes a model of configs/models, by the model's file name without .yaml."""
    return {model: name for name in _names() for model in declared(name, "MODELS")}


def declared(name: str, constant: str) -> tuple[str, ...]:
    """MODELS or UNREAD of a family; empty where its file leaves it out."""
    return vars(family(name)).get(constant, ())


@cache
def _names() -> tuple[str, ...]:
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))
