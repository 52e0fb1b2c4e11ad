"""A run's checkpoint: a folder of .safetensors and JSON, replaced as a whole. Nothing is pickled.

    model.safetensors      weights
    optimiser.safetensors  moment/parameter
    carried.safetensors    the initial states of the next step; their nesting stands in the metadata
    progress.json          the step, what the next row of metrics.csv needs, and a digest of each file, this one included

A checkpoint whose files are not those that were written together is refused as damaged. One of version 2026.11, which has no digests, is
checked by its names, shapes, dtypes and steps alone.

Dropout and everything else random is drawn from (seed, step), so no generator's state is kept.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from blocks.errors import ConfigError
from train.system.atomic_files import exchange, settle, unfinished, write_json
from train.system.nested_tensors import load_nested, save_nested
from zoo.model.model import Model
from zoo.weights.safetensors_io import WEIGHTS, read_tensors, save_weights

NAME = "checkpoint"
OPTIMISER, INITIAL_STATES, PROGRESS = "optimiser.safetensors", "carried.safetensors", "progress.json"
FILES, DIGEST = "files", "digest"  # keys of progress.json


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
    values = asdict(progress) | {FILES: _digests(fresh)}
    write_json(fresh / PROGRESS, values | {DIGEST: _digest(values)})
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
        progress = _progress(place)
        initial_states = load_nested(place / INITIAL_STATES)
    except (OSError, ValueError, TypeError, LookupError, SafetensorError) as error:
        raise damaged(place, str(error)) from None
    return Checkpoint(read_tensors(place / WEIGHTS), read_tensors(place / OPTIMISER), initial_states, progress)


def damaged(place: Path | str, why: str) -> ConfigError:
    """The error of a checkpoint that can't be gone on from."""
    return ConfigError(str(place), None, f"is damaged: {why}", "delete the run's folder to train it anew")


def _progress(place: Path) -> Progress:
    """What progress.json says, once it and the files beside it are known to be those that were saved. Raises ValueError."""
    values = json.loads((place / PROGRESS).read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"{PROGRESS} is no mapping")
    if DIGEST in values or FILES in values:
        if values.pop(DIGEST, None) != _digest(values):
            raise ValueError(f"{PROGRESS} has changed since it was written")
        files = values.pop(FILES)
        changed = [name for name, own in _digests(place).items() if files.get(name) != own]
        if changed:
            raise ValueError(f"{', '.join(changed)} has changed since it was written, or belongs to another step")
    missing = [f.name for f in fields(Progress) if f.name not in values]
    if missing:
        raise ValueError(f"{PROGRESS} lacks {', '.join(missing)}")
    return Progress(**values)


def _digests(place: Path) -> dict[str, str]:
    """SHA-256 of the files of tensors."""
    digests = {}
    for name in (WEIGHTS, OPTIMISER, INITIAL_STATES):
        with (place / name).open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
