"""Memorization: solved by a table learnt from training examples of another seed."""

from dataclasses import replace

import pytest
import torch

from tests.zoo.tasks.contract import assert_chance, assert_counted, assert_parsed, assert_refused, assert_solved
from zoo.tasks import HELD_OUT, memorization

CONFIG = memorization.Config(vocab_size=64)
LARGE = memorization.Config(vocab_size=257, length=16, map=3)


def learnt(config: memorization.Config) -> dict[int, int]:
    """The table that examples of seed 11 teach."""
    batch = memorization.generate(config, 11, 0, 400)
    return dict(zip(batch.inputs[:, ::2].flatten().tolist(), batch.labels[:, 1::2].flatten().tolist(), strict=True))


@pytest.mark.parametrize("config", [CONFIG, LARGE], ids=["small", "large"])
def test_what_was_learnt_holds_under_every_seed(config: memorization.Config) -> None:
    table = learnt(config)
    assert len(table) == len(set(table.values())) == config.keys
    assert_solved("memorization", config, lambda seen, _: None if len(seen) % 2 else table[seen[-2]])
    held_out = memorization.generate(config, 0, HELD_OUT, 8)
    assert held_out.labels[:, 1::2].tolist() == [[table[key] for key in row] for row in held_out.inputs[:, ::2].tolist()]
    assert [table[key] for key in range(1, config.keys + 1)] == memorization.values(config).tolist()


def test_the_contract() -> None:
    assert_counted("memorization", CONFIG)
    assert_chance("memorization", CONFIG)
    assert_parsed("memorization", CONFIG)


def test_the_map_depends_on_map_and_vocabulary_alone() -> None:
    assert (memorization.values(replace(CONFIG, length=512)) == memorization.values(CONFIG)).all()
    assert (memorization.values(replace(CONFIG, map=1)) != memorization.values(CONFIG)).mean() > 0.8
    assert torch.equal(memorization.generate(CONFIG, 0, 0, 4).labels[:, ::2], torch.full((4, 16), -100))


@pytest.mark.parametrize(
    ("changes", "place"), [({"vocab_size": 5}, "vocab_size"), ({"length": 31}, "length"), ({"length": 0}, "length"), ({"map": -1}, "map")]
)
def test_impossible_sizes_are_refused(changes: dict[str, object], place: str) -> None:
    assert_refused(lambda: memorization.Config(**changes), place)
