"""Induction: solved by looking for the last token in what came before."""

from dataclasses import replace

import numpy as np
import pytest

from tests.zoo.tasks.contract import assert_chance, assert_counted, assert_parsed, assert_refused, assert_solved
from zoo.tasks import IGNORE, induction

SPECIAL = induction.Config(length=32)
REPEATED = induction.Config(length=32, pattern="repeated", span=6)
CONFIGS = {
    "special": SPECIAL,
    "special-shortest": induction.Config(length=3, vocab_size=64),
    "special-deep": induction.Config(length=40, depth=0.25, vocab_size=64),
    "repeated": REPEATED,
    "repeated-plain": induction.Config(length=31, pattern="repeated", span=16),
    "repeated-early": induction.Config(length=40, pattern="repeated", span=5, depth=0.0, vocab_size=64),
    "repeated-late": induction.Config(length=40, pattern="repeated", span=5, depth=1.0, vocab_size=64),
}


def solver(seen: list[int], config: induction.Config) -> int | None:
    if config.pattern == "special":
        return seen[seen.index(0) + 1] if seen.count(0) == 2 else None
    if len(seen) <= config.length - config.span + 1:
        return None
    return seen[seen.index(seen[-1]) + 1]


@pytest.mark.parametrize("name", CONFIGS)
def test_what_followed_before_is_the_answer(name: str) -> None:
    assert_solved("induction", CONFIGS[name], solver)


@pytest.mark.parametrize("name", ["special", "special-deep", "repeated"])
def test_examples_are_counted(name: str) -> None:
    assert_counted("induction", CONFIGS[name])


def test_other_answers_score_at_chance() -> None:
    assert induction.chance(SPECIAL) == 1 / 15
    assert induction.chance(REPEATED) == 1 / 5
    assert_chance("induction", SPECIAL, count=2000)
    assert_chance("induction", REPEATED, among="row")


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_are_read(name: str) -> None:
    assert_parsed("induction", CONFIGS[name])


def test_a_token_of_the_span_stands_twice_and_nowhere_else() -> None:
    batch = induction.generate(REPEATED, 0, 0, 200)
    for row in batch.inputs.numpy():
        span = row[-5:]
        assert [int((row == token).sum()) for token in span] == [2] * 5


@pytest.mark.parametrize("config", [SPECIAL, REPEATED], ids=["special", "repeated"])
def test_depth_and_distance_say_where_the_first_occurrence_is(config: induction.Config) -> None:
    batch = induction.generate(config, 0, 0, 500)
    spread = np.histogram(batch.info["depth"], bins=5, range=(0, 1))[0]
    assert abs(spread / 100 - 1).max() < 0.4
    for row, (tokens, labels) in enumerate(zip(batch.inputs.numpy(), batch.labels.numpy(), strict=True)):
        t = int(np.flatnonzero(labels != IGNORE)[0])
        assert tokens[t - batch.info["distance"][row]] == tokens[t]
    for depth in (0.0, 0.5, 1.0):
        at = induction.generate(replace(config, depth=depth), 0, 0, 3).info["depth"]
        assert abs(at - depth).max() * config.free < 0.501


def test_published_lengths() -> None:
    assert induction.TRAIN_LENGTH == 256
    assert (induction.TEST_LENGTHS[0], induction.TEST_LENGTHS[-1]) == (64, 1 << 20)
    batch = induction.generate(induction.Config(length=1 << 17), 0, 0, 1)
    assert (batch.inputs == 0).sum() == 2


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"pattern": "twice"}, "pattern"),
        ({"vocab_size": 2}, "vocab_size"),
        ({"length": 2}, "length"),
        ({"depth": 1.1}, "depth"),
        ({"span": 4}, "span"),
        ({"pattern": "repeated"}, "span"),
        ({"pattern": "repeated", "span": 1}, "span"),
        ({"pattern": "repeated", "span": 16}, "span"),
        ({"pattern": "repeated", "span": 17, "length": 33}, "span"),
        ({"pattern": "repeated", "span": 9, "length": 16}, "length"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, object], place: str) -> None:
    assert_refused(lambda: induction.Config(**changes), place)
