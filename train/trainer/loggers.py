"""The loggers of a run beside metrics.csv: TensorBoard, or any Lightning logger by its class's name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from blocks.errors import ConfigError


def open_loggers(entries: tuple[Any, ...], folder: Path, step: int) -> list[Logger]:
    """The loggers of `train.loggers`, going on after `step`. Raises ConfigError where one can't be made."""
    loggers: list[Logger] = []
    for entry in entries:
        spec = dict(entry) if isinstance(entry, Mapping) else {"class": entry}
        name = spec.pop("class")
        if name == "tensorboard":
            loggers.append(_TensorBoard(folder, name="tensorboard", version="", purge_step=step + 1, **spec))
        elif name != "csv":
            loggers.append(_made(name, spec))
    return loggers


class _TensorBoard(TensorBoardLogger):
    def save(self) -> None:
        """Without Lightning's hparams.yaml: config.yaml says all."""
        self.experiment.flush()


def _made(name: str, arguments: dict[str, Any]) -> Logger:
    module, _, cls = name.rpartition(".")
    place = "train.loggers"
    if not module:
        raise ConfigError(place, name, "no such logger", "csv, tensorboard, or a class such as lightning.pytorch.loggers.WandbLogger")
    try:
        found = getattr(importlib.import_module(module), cls)
        if not (isinstance(found, type) and issubclass(found, Logger)):
            raise ConfigError(place, name, "is not a subclass of lightning.pytorch.loggers.Logger")
        return found(**arguments)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(place, name, f"can't be made: {error}") from error
