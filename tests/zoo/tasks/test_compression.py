"""Compression: solved by looking up the place."""

import numpy as np
import pytest

from tests.zoo.tasks.contract import assert_chance, assert_counted, assert_parsed, assert_refused, assert_solved
from zoo.tasks import IGNORE, compression

CONFIGS = {"default": compression.Config(), "small": compression.Config(vocab_size=64, length=33, symbols=4)}


def solver(seen: list[int], config: compression.Config) -> int | None:
    if 0 not in seen[:-1]:
        return None
    return seen[seen[-1] - config.symbols - 1]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_contract(name: str) -> None:
    assert_solved("compression", CONFIGS[name], solver)
    assert_counted("compression", CONFIGS[name])
    assert_chance("compression", CONFIGS[name])
    assert_parsed("compression", CONFIGS[name])


def test_every_place_is_asked_for_once() -> None:
    config = CONFIGS["small"]
    batch = compression.generate(config, 0, 0, 50)
    asked = batch.inputs[:, config.items + 1 :].numpy() - config.symbols - 1
    assert (np.sort(asked, axis=1) == np.arange(config.items)).all()
    assert (batch.info["data"] == batch.inputs[:, : config.items].numpy()).all()
    rows, at = np.nonzero(batch.labels.numpy() != IGNORE)
    assert (batch.inputs.numpy()[rows, at - batch.info["distance"][rows, at]] == batch.labels.numpy()[rows, at]).all()


@pytest.mark.parametrize(
    ("changes", "place"),
    [({"length": 64}, "length"), ({"length": 1}, "length"), ({"symbols": 1}, "symbols"), ({"vocab_size": 46}, "vocab_size")],
)
def test_impossible_sizes_are_refused(changes: dict[str, object], place: str) -> None:
    assert_refused(lambda: compression.Config(**changes), place)
