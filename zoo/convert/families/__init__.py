"""One file a family of checkpoints; see zoo/convert/__init__.py for what it holds."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
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
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def family(name: str) -> Family:
    """The family of a name. Raises ConfigError."""
    one_of("family", name, tuple(names()))
    return cast(Family, importlib.import_module(f"{__name__}.{name}"))


def of_model_type(model_type: str) -> Family:
    """The family that reads a model_type. Raises ConfigError."""
    types = {kind: name for name in names() for kind in family(name).MODEL_TYPES}
    if model_type not in types:
        near = get_close_matches(model_type, list(types), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError("model_type", model_type, "is of no known family", f"{hint}Known: {', '.join(sorted(types))}")
    return family(types[model_type])
