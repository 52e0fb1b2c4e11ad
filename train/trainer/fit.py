"""Lightning's Trainer, silent, around our module."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments import LightningEnvironment

from blocks.errors import require
from train.data import Source
from train.plan.budget import Spending
from train.trainer.loggers import open_loggers
from train.trainer.metrics_callback import Recorder
from train.trainer.module import Steps, Training
from train.trainer.progress import Bar


def fit(training: Training, folder: Path, source: Source, spending: Spending, bar: Bar | None) -> None:
    """Train from training.progress to the last step. Raises TrainingFailed; the global random state is left as it was."""
    train, step = training.run.train, training.progress.step
    held_out = source.held_out(train.validate_rows) if train.validate_every else {}
    recorder = Recorder(folder, training, spending, held_out, bar)
    if step >= training.steps:
        return
    with _quiet():
        trainer = pl.Trainer(
            accelerator=_accelerator(train.device),
            devices=1,
            plugins=[LightningEnvironment()],
            max_epochs=1,
            logger=open_loggers(train.loggers, folder, step),
            callbacks=[recorder],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        if train.compile:
            training.model.stack.compile()
        _fit(trainer, training, Steps(source, training.run, step, training.steps), bar)


def _accelerator(device: str) -> str:
    """Lightning's word for the device; auto = CUDA if there is one."""
    there = torch.cuda.is_available()
    require(there or device != "cuda", "train.device", device, "there is no CUDA device here", "choices: auto, cpu")
    return "gpu" if there and device != "cpu" else "cpu"


def _fit(trainer: pl.Trainer, training: Training, steps: Steps, bar: Bar | None) -> None:
    if bar is not None:
        bar.start(training.run.name, training.progress.step, training.steps)
    devices = [torch.cuda.current_device()] if trainer.strategy.root_device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), _interruptible():
            trainer.fit(training, train_dataloaders=steps)
    finally:
        if bar is not None:
            bar.stop()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt again: Lightning makes it an exit and leaves the signal switched off."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """None of Lightning's banners, tips and hints."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
