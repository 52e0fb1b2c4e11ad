"""One planned run in a process of its own: train it, measure it, report progress."""

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

from blocks.errors import ConfigError
from train.run.progress import Event, QueueBar

REPORT_SECONDS = 0.2


@dataclass(frozen=True)
class Failed:
    """A run that could not be finished."""

    message: str
    exit_code: int  # 2 = wrong input, 1 = anything else


def set_up(threads: int, parent: int) -> None:
    """The start of a worker: so many threads, the machine's settings; it exits with its parent."""
    end_with_parent(parent)
    import torch

    from train.system import startup

    torch.set_num_threads(threads)
    startup.set_up()


def end_with_parent(parent: int) -> None:
    """Make this process exit with the process `parent`, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets Ctrl-C and kills its workers
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)


def execute(index: int, run: Any, folder: Path, queue: Queue[Event]) -> Failed | None:
    """Train and measure one PlannedRun in its folder. Returns how it failed, if it did."""
    from kernels.verify import KernelError
    from train.run.single_run import served_by, train_run
    from train.trainer.divergence import TrainingFailed

    try:
        train_run(run.config, folder, progress=QueueBar(index, queue))
        with served_by(run.config.kernels):
            _measure(index, run, folder, queue)
    except (TrainingFailed, ConfigError, KernelError) as error:
        return Failed(f"{run.config.name}, seed {run.seed}: {error}", 2 if isinstance(error, ConfigError) else 1)
    return None


def _measure(index: int, run: Any, folder: Path, queue: Queue[Event]) -> None:
    from train.measure.measure import measure, measured
    from zoo.convert.model_folder import load

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

            return measure(model, run.config.data, kind, config, run.seed, told, keep)

        measured(folder, name, kind, config, run.seed, work)
