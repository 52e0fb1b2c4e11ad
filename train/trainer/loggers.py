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
        arguments = dict(entry) if isinstance(entry, Mapping) else {"class": entry}
        name = arguments.pop("class")
        if name == "tensorboard":
            loggers.append(_TensorBoard(folder, name="tensorboard", version="", purge_step=step + 1, **arguments))
        elif name != "csv":
            loggers.append(_made(name, arguments))
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
        logger_class = getattr(importlib.import_module(module), cls)
        if not (isinstance(logger_class, type) and issubclass(logger_class, Logger)):
            raise ConfigError(place, name, "is not a subclass of lightning.pytorch.loggers.Logger")
        return logger_class(**arguments)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(place, name, f"can't be made: {error}") from error
