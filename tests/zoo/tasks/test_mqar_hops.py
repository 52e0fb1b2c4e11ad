"""Recall over hops: solved by following the pairs until the value is no key."""

from dataclasses import replace

import numpy as np
import pytest

from tests.zoo.tasks.contract import assert_chance, assert_counted, assert_parsed, assert_refused, assert_solved
from zoo.tasks import IGNORE, mqar_hops

CONFIGS = {
    "first": mqar_hops.Config(vocab_size=64, length=64, filler="noise"),
    "every": mqar_hops.Config(vocab_size=64, length=64, hops=3, ask="every", filler="noise", power=0.5),
    "full": mqar_hops.Config(vocab_size=64, length=48, hops=3, ask="every", filler="zero"),
    "one-hop": mqar_hops.Config(vocab_size=64, length=64, chains=8, hops=1, filler="noise"),
}


def follow(pairs: dict[int, int], key: int) -> tuple[int, int]:
    hops = 0
    while key in pairs:
        key, hops = pairs[key], hops + 1
    return key, hops


def pairs_of(row: list[int], config: mqar_hops.Config) -> dict[int, int]:
    head = row[: 2 * config.pairs]
    return dict(zip(head[::2], head[1::2], strict=True))


def solver(seen: list[int], config: mqar_hops.Config) -> int | None:
    if len(seen) <= 2 * config.pairs:
        return None
    pairs = pairs_of(seen, config)
    return follow(pairs, seen[-1])[0] if seen[-1] in pairs else None


@pytest.mark.parametrize("name", CONFIGS)
def test_the_end_of_the_chain_is_the_answer(name: str) -> None:
    assert_solved("mqar_hops", CONFIGS[name], solver)
    assert_counted("mqar_hops", CONFIGS[name])
    assert_parsed("mqar_hops", CONFIGS[name])


@pytest.mark.parametrize("name", CONFIGS)
def test_other_answers_score_at_chance(name: str) -> None:
    assert_chance("mqar_hops", CONFIGS[name], among="row")


@pytest.mark.parametrize("name", CONFIGS)
def test_hops_and_distance_are_true(name: str) -> None:
    config = CONFIGS[name]
    batch = mqar_hops.generate(config, 0, 0, 32)
    for i, row in enumerate(batch.inputs.tolist()):
        pairs = pairs_of(row, config)
        asked = np.flatnonzero(batch.labels[i].numpy() != IGNORE)
        assert len(asked) == config.asked
        for t in asked:
            assert follow(pairs, row[t])[1] == batch.info["hops"][i, t]
            assert row[t - batch.info["distance"][i, t] + 1] == batch.labels[i, t]
        assert len(set(pairs)) == config.pairs
        assert sum(value >= 32 for value in pairs.values()) == config.chains
    hops = batch.info["hops"][batch.info["hops"] > 0]
    expected = [config.hops] if config.ask == "first" else list(range(1, config.hops + 1))
    assert np.unique(hops).tolist() == expected


def test_random_filler_may_repeat_keys_and_the_labels_stay_right() -> None:
    config = replace(CONFIGS["first"], filler="random")
    batch = mqar_hops.generate(config, 0, 0, 32)
    for i, row in enumerate(batch.inputs.tolist()):
        asked = np.flatnonzero(batch.labels[i].numpy() != IGNORE)
        pairs = pairs_of(row, config)
        assert [follow(pairs, row[t])[0] for t in asked] == batch.labels[i, asked].tolist()


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"chains": 0}, "chains"),
        ({"hops": 0}, "hops"),
        ({"length": 65}, "length"),
        ({"length": 22}, "length"),
        ({"length": 30, "ask": "every"}, "length"),
        ({"vocab_size": 16}, "vocab_size"),
        ({"power": 0.0}, "power"),
        ({"ask": "last"}, "ask"),
        ({"filler": "none"}, "filler"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, object], place: str) -> None:
    assert_refused(lambda: mqar_hops.Config(**changes), place)
    mqar_hops.Config(length=24, vocab_size=18)
