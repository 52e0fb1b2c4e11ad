"""State tracking: solved by moving the points about, one token after the other."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from tests.zoo.tasks.contract import assert_chance, assert_counted, assert_parsed, assert_refused, assert_solved
from zoo.tasks import state_tracking

Config = state_tracking.Config
CONFIGS = {
    "parity": Config(length=33, group="parity"),
    "s3": Config(length=20),
    "a4": Config(length=20, group="a4"),
    "s4": Config(length=20, group="s4", moves=3),
    "a5": Config(length=40, group="a5"),
    "s5": Config(length=40, group="s5"),
    "s5-swaps": Config(length=40, group="s5", moves=2),
    "s5-end": Config(length=17, group="s5", ask="end"),
    "a5-end": Config(length=40, group="a5", moves=3, ask="end"),
    "parity-end": Config(length=33, group="parity", ask="end"),
}
POINTS = {"parity": 2, "s3": 3, "s4": 4, "a4": 4, "s5": 5, "a5": 5}


def even(p: tuple[int, ...]) -> bool:
    seen, cycles = set(), 0
    for i in range(len(p)):
        cycles += i not in seen
        while i not in seen:
            seen.add(i)
            i = p[i]
    return (len(p) - cycles) % 2 == 0


def group(name: str) -> list[tuple[int, ...]]:
    group = sorted(permutations(range(POINTS[name])))
    return [p for p in group if even(p)] if name.startswith("a") else group


def solver(seen: list[int], config: Config) -> int | None:
    if config.ask == "end" and len(seen) < config.length:
        return None
    elements = group(config.group)
    where = list(range(POINTS[config.group]))  # where each point is now
    for token in seen:
        where = [elements[token][place] for place in where]
    return elements.index(tuple(where))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_running_product_is_the_answer(name: str) -> None:
    assert_solved("state_tracking", CONFIGS[name], solver, seeds=(0, 1), count=4)
    assert_counted("state_tracking", CONFIGS[name])
    assert_parsed("state_tracking", CONFIGS[name])


@pytest.mark.parametrize("name", ["parity", "s3", "a5", "s5", "parity-end", "a5-end"])
def test_other_answers_score_at_chance(name: str) -> None:
    assert_chance("state_tracking", CONFIGS[name], count=3000)


def test_chance_is_the_likeliest_state() -> None:
    for name, order in (("parity", 2), ("s3", 6), ("a4", 12), ("a5", 60), ("s5", 120)):
        assert len(state_tracking.elements(name)) == order
        assert state_tracking.chance(Config(group=name)) == pytest.approx(1 / order)
    swaps = Config(group="s4", moves=2, length=6)  # identity and six swaps: the law of the state at each position, by simulation
    labels = state_tracking.generate(swaps, 0, 0, 60_000).labels.numpy()
    best = [np.bincount(column).max() / len(labels) for column in labels.T]
    assert state_tracking.chance(swaps) == pytest.approx(np.mean(best), abs=0.004)
    assert state_tracking.chance(replace(swaps, ask="end")) == pytest.approx(best[-1], abs=0.008)


def test_parity_counts_ones() -> None:
    batch = state_tracking.generate(CONFIGS["parity"], 0, 0, 16)
    assert (batch.labels == batch.inputs.cumsum(1) % 2).all()


def test_products_form_a_group() -> None:
    table = state_tracking.products("a5")
    assert (table[0] == np.arange(60)).all()
    assert (table[:, 0] == np.arange(60)).all()
    assert (np.sort(table, axis=0) == np.arange(60)[:, None]).all()
    x, y, z = np.random.Generator(np.random.Philox(0)).integers(0, 60, (3, 500))
    assert (table[table[x, y], z] == table[x, table[y, z]]).all()


def test_moves_limits_the_tokens() -> None:
    assert len(state_tracking.tokens(CONFIGS["s5-swaps"])) == 11
    assert len(state_tracking.tokens(CONFIGS["a5-end"])) == 21
    assert state_tracking.tokens(Config(group="s5")).tolist() == list(range(120))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"group": "z60"}, "group"),
        ({"ask": "never"}, "ask"),
        ({"length": 0}, "length"),
        ({"group": "s5", "vocab_size": 119}, "vocab_size"),
        ({"group": "s3", "moves": 4}, "moves"),
        ({"group": "s5", "moves": 1}, "moves"),
        ({"group": "a5", "moves": 2}, "moves"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, object], place: str) -> None:
    assert_refused(lambda: Config(**changes), place)
