"""What must hold for every task, given a solver of its own that reads the tokens so far and says what is next, if anything is asked."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from blocks.errors import ConfigError
from train.data.config import TaskData, parse_data
from zoo.tasks import HELD_OUT, IGNORE, TASKS, Batch

Solver = Callable[[list[int], Any], int | None]  # (tokens read, config) -> answer, None where nothing is asked


def solve(batch: Batch, solver: Solver, config: Any) -> torch.Tensor:
    """(b, t) answers, each from the tokens up to its own position alone; IGNORE where the solver sees no question."""
    rows = batch.inputs.tolist()
    answers = [[solver(row[: t + 1], config) for t in range(len(row))] for row in rows]
    return torch.tensor([[IGNORE if answer is None else answer for answer in row] for row in answers])


def assert_solved(name: str, config: Any, solver: Solver, *, seeds: tuple[int, ...] = (0, 1, 2), count: int = 8) -> None:
    """The solver finds every question and every answer, and nothing else is asked: no label is undetermined by what was read."""
    for seed in seeds:
        batch = TASKS[name].generate(config, seed, 0, count)
        assert_well_formed(batch, config, count)
        assert torch.equal(solve(batch, solver, config), batch.labels)


def assert_well_formed(batch: Batch, config: Any, count: int) -> None:
    assert batch.inputs.dtype == batch.labels.dtype == torch.int64
    assert batch.inputs.shape == batch.labels.shape == (count, config.length)
    assert 0 <= int(batch.inputs.min()) <= int(batch.inputs.max()) < config.vocab_size
    asked = batch.labels != IGNORE
    assert asked.any(1).all()
    assert 0 <= int(batch.labels[asked].min()) <= int(batch.labels[asked].max()) < config.vocab_size
    for value in batch.info.values():
        assert isinstance(value, np.ndarray)
        assert len(value) == count
    assert (batch.info["length"] == config.length).all()


def assert_counted(name: str, config: Any) -> None:
    """Any range is drawn without those before it; indices, seeds and the held-out range differ."""
    task = TASKS[name]
    whole, part = task.generate(config, 5, 0, 8), task.generate(config, 5, 3, 2)
    assert torch.equal(part.inputs, whole.inputs[3:5])
    assert torch.equal(part.labels, whole.labels[3:5])
    for key, value in whole.info.items():
        assert np.array_equal(part.info[key], value[3:5])
    blocks = [task.generate(config, seed, start, 16).inputs for seed, start in ((0, 0), (1, 0), (0, HELD_OUT), (0, 2 * HELD_OUT))]
    for i, block in enumerate(blocks):
        assert len(block.unique(dim=0)) > 12
        assert all((block == other).all(1).sum() <= 2 for other in blocks[:i])


def assert_chance(name: str, config: Any, *, count: int = 400, among: str = "examples") -> None:
    """Answers of other examples, or of the row's own other questions (`among` row), score at chance."""
    labels = TASKS[name].generate(config, 1, 0, count).labels
    asked = labels != IGNORE
    if among == "row":
        answers = labels[asked].reshape(count, -1)
        order = torch.from_numpy(np.argsort(np.random.Generator(np.random.Philox(7)).random(answers.shape), axis=1))
        right = (answers.gather(1, order) == answers).double()
    else:
        right = (labels == labels.roll(1, 0)).double()[asked & asked.roll(1, 0)]
    chance, n = TASKS[name].chance(config), right.numel()
    assert n >= 200
    assert abs(float(right.mean()) - chance) < 4 * (chance * (1 - chance) / n) ** 0.5 + 1 / n


def assert_parsed(name: str, config: Any) -> None:
    """The fields of the config, as YAML gives them, are a `data:` of this kind."""
    plain = {f.name: getattr(config, f.name) for f in fields(config)}
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}
    parsed = parse_data({"kind": name, **values})
    assert isinstance(parsed, TaskData)
    assert parsed.mix == parsed.test == (config,)
    assert parse_data({"kind": name}).mix == (TASKS[name].Config(),)


def assert_refused(make: Callable[[], object], place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.place == place
    assert caught.value.rule
