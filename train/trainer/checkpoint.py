"""A run's checkpoint: a folder of .safetensors and JSON, replaced as a whole. Nothing is pickled.

    model.safetensors      weights
    optimiser.safetensors  moment/parameter
    carried.safetensors    the initial states of the next step; their nesting stands in the metadata
    progress.json          the step, and what the next row of metrics.csv needs

Dropout and everything else random is drawn from (seed, step), so no generator's state is kept.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import save_file
from torch import Tensor

from blocks.errors import ConfigError
from train.system.atomic_files import exchange, settle, unfinished, write_json
from train.system.nested_tensors import load_nested, save_nested
from zoo.model.model import Model
from zoo.weights.safetensors_io import WEIGHTS, read_tensors, save_weights

NAME = "checkpoint"
OPTIMISER, INITIAL_STATES, PROGRESS = "optimiser.safetensors", "carried.safetensors", "progress.json"


@dataclass
class Progress:
    """How far a run is, and the running means of its metrics."""

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
    """A checkpoint as it was read."""

    model: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    initial_states: list[Any]
    progress: Progress


def save(folder: Path, model: Model, optimiser: dict[str, Tensor], initial_states: list[Any], progress: Progress) -> None:
    """Replace the checkpoint of a run folder."""
    fresh = unfinished(folder / NAME)
    fresh.mkdir()
    save_weights(model, fresh / WEIGHTS)
    save_file({name: tensor.contiguous() for name, tensor in optimiser.items()}, fresh / OPTIMISER)
    save_nested(initial_states, fresh / INITIAL_STATES)
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
        initial_states = load_nested(place / INITIAL_STATES)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(str(place), None, f"is damaged: {error}", "delete the run's folder to train it anew") from None
    return Checkpoint(read_tensors(place / WEIGHTS), read_tensors(place / OPTIMISER), initial_states, progress)
