"""A run's checkpoint: a folder of .safetensors and JSON, replaced as a whole. Nothing is pickled.

    model.safetensors      weights
    optimiser.safetensors  moment/parameter
    carried.safetensors    what the next step's rows start from; its nesting stands in the metadata
    progress.json          the step, and what the next row of metrics.csv needs

Dropout and everything else random is drawn from (seed, step), so that no generator's state needs keeping.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from blocks.base import ConfigError
from train.files import exchange, settle, unfinished, write_json
from zoo.model import Model
from zoo.weights import WEIGHTS, read_tensors, save_weights

NAME = "checkpoint"
OPTIMISER, CARRIED, PROGRESS = "optimiser.safetensors", "carried.safetensors", "progress.json"


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0  # steps done
    smoothed: float | None = None  # loss, exponentially smoothed
    best: float | None = None  # the smallest smoothed loss
    loss_sum: float = 0.0  # over the steps since the last row of metrics.csv
    norm_sum: float = 0.0
    violation_sum: float = 0.0
    dead_sum: float = 0.0
    pending: int = 0  # those steps
    seconds: float = 0.0  # spent in training steps


class Checkpoint(NamedTuple):
    """What was read back."""

    model: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    carried: list[Any]
    progress: Progress


def save(folder: Path, model: Model, optimiser: dict[str, Tensor], carried: list[Any], progress: Progress) -> None:
    """Replace the checkpoint of a run folder."""
    fresh = unfinished(folder / NAME)
    fresh.mkdir()
    save_weights(model, fresh / WEIGHTS)
    save_file({name: tensor.contiguous() for name, tensor in optimiser.items()}, fresh / OPTIMISER)
    save_nested(carried, fresh / CARRIED)
    write_json(fresh / PROGRESS, asdict(progress))
    exchange(fresh, folder / NAME)


def begun(folder: Path) -> bool:
    """Whether a run folder has a checkpoint. Finishes what a killed process left half done."""
    settle(folder / NAME)
    return (folder / NAME).exists()


def restore(folder: Path) -> Checkpoint | None:
    """The checkpoint of a run folder; None if there is none yet. Finishes what a killed process left half done."""
    if not begun(folder):
        return None
    place = folder / NAME
    try:
        progress = Progress(**json.loads((place / PROGRESS).read_text(encoding="utf-8")))
        carried = load_nested(place / CARRIED)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(str(place), None, f"is damaged: {error}", "delete the run's folder to train it anew") from None
    return Checkpoint(read_tensors(place / WEIGHTS), read_tensors(place / OPTIMISER), carried, progress)


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
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, tuple) and "_fields" in vars(found)):
        raise ValueError(f"{module}.{name} is no NamedTuple of this model")
    return found
