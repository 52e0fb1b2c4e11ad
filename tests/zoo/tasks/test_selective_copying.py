"""Selective copying: solved by leaving the noise out."""

import numpy as np
import pytest

from tests.zoo.tasks.contract import assert_chance, assert_counted, assert_parsed, assert_refused, assert_solved
from zoo.tasks import IGNORE, selective_copying
from zoo.tasks.shared.base import subset, uniforms

CONFIGS = {
    "blank": selective_copying.Config(length=48, data=8),
    "shown": selective_copying.Config(length=48, data=8, answer="shown", vocab_size=64),
    "blank-full": selective_copying.Config(length=17, data=8),
    "shown-full": selective_copying.Config(length=16, data=8, answer="shown"),
}


def solver(seen: list[int], config: selective_copying.Config) -> int | None:
    if 1 not in seen:
        return None
    copy = seen.index(1)
    data = [token for token in seen[:copy] if token]
    given = len(seen) - copy - 1  # tokens after the copy token
    if config.answer == "blank":
        return data[given - 1] if given else None
    return data[given]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_data_in_order_are_the_answer(name: str) -> None:
    assert_solved("selective_copying", CONFIGS[name], solver)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_contract(name: str) -> None:
    assert_counted("selective_copying", CONFIGS[name])
    assert_chance("selective_copying", CONFIGS[name])
    assert_parsed("selective_copying", CONFIGS[name])


def test_all_places_are_equally_likely() -> None:
    config = selective_copying.Config(length=30, data=4)
    before = selective_copying.generate(config, 0, 0, 5000).inputs[:, : config.room].numpy() > 1
    assert (before.sum(1) == 4).all()
    share = before.mean(0) / (4 / config.room)
    assert abs(share - 1).max() < 0.15


def test_rank_and_distance_lead_back_to_the_datum() -> None:
    for config in CONFIGS.values():
        batch = selective_copying.generate(config, 0, 0, 8)
        rows, at = np.nonzero(batch.labels.numpy() != IGNORE)
        back = at - batch.info["distance"][rows, at]
        assert (batch.inputs.numpy()[rows, back] == batch.labels.numpy()[rows, at]).all()
        assert (batch.info["rank"][rows, at].reshape(8, -1) == np.arange(config.data)).all()
        assert (batch.info["rank"] >= 0).sum() == len(rows)


def test_subsets_are_all_equally_likely() -> None:
    drawn = subset(uniforms(("s",), 0, 40_000, 3), 5)
    assert (np.diff(drawn, axis=1) > 0).all()
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 10
    assert abs(counts / 4000 - 1).max() < 0.07
    assert np.array_equal(subset(uniforms(("s",), 0, 2, 4), 4), np.tile(np.arange(4), (2, 1)))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"vocab_size": 3}, "vocab_size"),
        ({"data": 0}, "data"),
        ({"answer": "hidden"}, "answer"),
        ({"length": 32, "data": 16}, "length"),
        ({"length": 31, "data": 16, "answer": "shown"}, "length"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, object], place: str) -> None:
    assert_refused(lambda: selective_copying.Config(**changes), place)
    selective_copying.Config(length=33, data=16)
    selective_copying.Config(length=32, data=16, answer="shown")
