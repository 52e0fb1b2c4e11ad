"""lm-evaluation-harness (the package lm_eval) on zoo models: its own class `hf`, to which importing zoo.hf makes them known.

    python -m zoo.hf.harness run --model hf --model_args pretrained=FOLDER --tasks lambada_openai      as the command lm_eval
    zoo.hf.harness.evaluate("FOLDER", ["lambada_openai"])                                               in Python

FOLDER is what `zoo export RUN --to hf --out FOLDER` writes, the tokenizer's files in it. Of a class that transformers has itself the
command `lm_eval` reads it too.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import zoo.hf  # noqa: F401  (registers the class)
from blocks.errors import ConfigError


def evaluate(folder: str | Path, tasks: Sequence[str], *, task_folder: str | Path | None = None, **options: Any) -> dict[str, Any]:
    """The results of lm_eval.simple_evaluate on the model in a folder, by task.

    task_folder: holds YAMLs of tasks of one's own; the harness's thousands are then not looked through. options: simple_evaluate's
    (limit, num_fewshot, batch_size, device ...).
    """
    own = None if task_folder is None else str(task_folder)
    manager = _lm_eval("lm_eval.tasks").TaskManager(include_path=own, include_defaults=own is None)
    arguments = {"pretrained": str(folder)}
    evaluation = _lm_eval("lm_eval").simple_evaluate(model="hf", model_args=arguments, tasks=list(tasks), task_manager=manager, **options)
    results: dict[str, Any] = evaluation["results"]
    return results


def _lm_eval(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError("lm_eval", None, "needs the packages lm_eval and accelerate", "run: pip install lm_eval accelerate") from None


if __name__ == "__main__":
    _lm_eval("lm_eval.__main__").cli_evaluate()
