"""Nested tensors in a file: a .safetensors whose metadata holds the nesting as JSON. Nothing is pickled."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

MOVED = {  # former module -> its module now, of NamedTuples in files of 2026.11
    "blocks.base": "blocks.context",
    "train.drawn": "train.trainer.state_distribution",
    "zoo.model": "zoo.model.model",
    "zoo.segments": "zoo.model.segment_memory",
}
RENAMED = {("train.trainer.state_distribution", "Drawn"): "StateDistribution"}  # (module now, former name) -> name now


def save_nested(value: Any, path: Path) -> None:
    """Tensors in tuples, NamedTuples, lists and dicts as one .safetensors, the nesting as JSON in its metadata."""
    tensors: dict[str, Tensor] = {}
    save_file(tensors, path, {"nesting": json.dumps(_described(value, tensors))})


def load_nested(path: Path) -> Any:
    """What `save_nested` wrote. NamedTuples are looked up among the modules that are already imported; nothing is imported or run."""
    with safe_open(path, framework="pt") as file:
        nesting = json.loads(file.metadata()["nesting"])
        return _rebuilt(nesting, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def _described(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": {key: _described(item, tensors) for key, item in value.items()}}
    if isinstance(value, (list, tuple)):
        kind = type(value)
        named = [] if kind in (list, tuple) else [kind.__module__, kind.__qualname__]
        items = [_described(item, tensors) for item in value]
        return {"list" if kind is list else "tuple": items, **({"class": named} if named else {})}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise TypeError(f"a state holds a {type(value).__name__}: only tensors, numbers, text, tuples, lists and dicts can be kept")


def _rebuilt(node: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    match node:
        case {"tensor": str(name)}:
            return tensors[name]
        case {"dict": dict(items)}:
            return {key: _rebuilt(item, tensors) for key, item in items.items()}
        case {"list": list(items)}:
            return [_rebuilt(item, tensors) for item in items]
        case {"tuple": list(items), "class": [str(module), str(name)]}:
            return _named_tuple(module, name)._make(_rebuilt(item, tensors) for item in items)
        case {"tuple": list(items)}:
            return tuple(_rebuilt(item, tensors) for item in items)
        case {"value": value}:
            return value
    raise ValueError(f"unknown nesting {node!r}")


def _named_tuple(module: str, name: str) -> Any:
    place = MOVED.get(module, module)
    named: Any = sys.modules.get(place)
    for part in RENAMED.get((place, name), name).split("."):
        named = getattr(named, part, None)
    if not (isinstance(named, type) and issubclass(named, tuple) and "_fields" in vars(named)):
        raise ValueError(f"{module}.{name} is no NamedTuple of this model")
    return named
