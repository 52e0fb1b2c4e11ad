"""What must hold for every task whose answers stand in the context."""

from typing import Any

import numpy as np
import pytest
import torch

from blocks.errors import ConfigError
from zoo.tasks import IGNORE, TASKS, Batch
from zoo.tasks.shared.base import uniforms

DOCUMENT = bytes(range(97, 123)) * 200


def assert_copies(batch: Batch) -> None:
    """`distance` leads from each scored position back to the one whose next token is the answer too."""
    rows, at = np.nonzero(batch.labels.numpy() != IGNORE)
    back = at - batch.info["distance"][rows, at]
    assert (back < at).all()
    assert (batch.inputs.numpy()[rows, back + 1] == batch.labels.numpy()[rows, at]).all()
    assert (batch.info["distance"][batch.labels.numpy() == IGNORE] == 0).all()


def assert_document(name: str, config: Any, clue: bytes) -> None:
    """`haystack: text` is cut from the document, in one piece but for the units; documents that won't do are refused."""
    task = TASKS[name]
    batch = task.generate(config, 0, 0, 2, text=DOCUMENT)  # type: ignore[call-arg]
    assert (batch.inputs == ord("q")).any()
    for bad in (b"short", clue + DOCUMENT, None):
        with pytest.raises(ConfigError):
            task.generate(config, 0, 0, 1, text=bad)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="uses no document"):
        task.generate(task.Config(), 0, 0, 1, text=DOCUMENT)  # type: ignore[call-arg]


def picks(count: int, n: int) -> list[int]:
    """A choice of [0, n) for each row, independent of every task's own draws."""
    return (uniforms(("guess", n), 0, count, 1)[:, 0] * n).astype(int).tolist()


def answers(batch: Batch) -> list[list[int]]:
    """The scored ids of each row, in order."""
    return [row[row != IGNORE].tolist() for row in batch.labels]


def assert_rate(hits: int, trials: int, chance: float) -> None:
    assert trials >= 300
    assert abs(hits / trials - chance) < 4 * (chance * (1 - chance) / trials) ** 0.5 + 1 / trials


def assert_quick(name: str, *configs: Any) -> None:
    """Long rows are drawn at once."""
    for config in configs:
        batch = TASKS[name].generate(config, 0, 0, 1)
        assert batch.inputs.shape == (1, config.length)
        assert int(batch.inputs.max()) < config.vocab_size
        assert isinstance(batch.labels, torch.Tensor)
