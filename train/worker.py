"""One planned run in a process of its own: train it, measure it, tell how it gets on."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

from blocks.base import ConfigError

REPORT_SECONDS = 0.2


@dataclass(frozen=True)
class Event:
    """What a worker tells: the run, what it is doing, and how far it is."""

    run: int  # index in the plan
    phase: str  # "train" or a measure's name
    done: int
    total: int
    note: str = ""


@dataclass(frozen=True)
class Failed:
    """A run that could not be finished."""

    message: str
    exit_code: int  # 2 = wrong input, 1 = anything else


class QueueBar:
    """A run's Bar that passes everything on to the process that draws."""

    def __init__(self, run: int, queue: Queue[Event]) -> None:
        self.run, self.queue, self.steps = run, queue, 0

    def start(self, name: str, step: int, steps: int) -> None:
        self.steps = steps
        self.queue.put(Event(self.run, "train", step, steps))

    def update(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        self.queue.put(Event(self.run, "train", step, self.steps, f"loss {loss:.3f}, {tokens_per_s:,.0f} tok/s"))

    def stop(self) -> None:
        pass


def set_up(threads: int, parent: int) -> None:
    """A worker's first act: so many threads, the machine's settings, and no life longer than its parent's."""
    end_with_parent(parent)
    import torch

    from train import machine

    torch.set_num_threads(threads)
    machine.set_up()


def end_with_parent(parent: int) -> None:
    """Live no longer than the process `parent`, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends us
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)


def execute(index: int, run: Any, folder: Path, queue: Queue[Event]) -> Failed | None:
    """Train and measure one PlannedRun in its folder. Returns how it failed, if it did."""
    from kernels.verify import KernelError
    from train.health import TrainingFailed
    from train.run import served_by, train_run

    try:
        train_run(run.spec, folder, progress=QueueBar(index, queue))
        with served_by(run.spec.kernels):
            _measure(index, run, folder, queue)
    except (TrainingFailed, ConfigError, KernelError) as error:
        return Failed(f"{run.spec.name}, seed {run.seed}: {error}", 2 if isinstance(error, ConfigError) else 1)
    return None


def _measure(index: int, run: Any, folder: Path, queue: Queue[Event]) -> None:
    from train.measuring import measure, measured
    from zoo.loading import load

    model = None
    for name, (kind, config) in run.measures.items():

        def work(keep: Any, name: str = name, kind: str = kind, config: Any = config) -> list[Any]:
            nonlocal model
            model = load(folder) if model is None else model
            last = [0.0]

            def told(done: int, total: int) -> None:
                if time.monotonic() - last[0] > REPORT_SECONDS:
                    last[0] = time.monotonic()
                    queue.put(Event(index, name, done, total))

            return measure(model, run.spec.data, kind, config, run.seed, told, keep)

        measured(folder, name, kind, config, run.seed, work)
