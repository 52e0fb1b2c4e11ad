"""Synthetic tasks, found by their files: a task is a module of this folder with SUMMARY, Config, chance(config) and
generate(config, seed, start, count) -> Batch, see shared.base.Task. The file's name is the task's.

`generate` is a pure function: example i under a seed is the same whatever was drawn before it. Training counts examples up
from 0; evaluation takes them from HELD_OUT on.
"""

import importlib
import pkgutil
from typing import Any

from zoo.tasks.shared.base import HELD_OUT, IGNORE, Batch, Task, accuracy, exact


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")


TASKS: dict[str, Task] = {m.name: _module(m.name) for m in sorted(pkgutil.iter_modules(__path__)) if not m.ispkg}

__all__ = ["HELD_OUT", "IGNORE", "TASKS", "Batch", "Task", "accuracy", "exact"]
