"""In-context recall: solved by a parser that keeps a table of motifs."""

import numpy as np
import pytest

from tests.zoo.tasks.contract import assert_chance, assert_counted, assert_parsed, assert_refused, assert_solved
from zoo.tasks import IGNORE, TASKS, in_context_recall
from zoo.tasks.shared import mad

Config = in_context_recall.Config
CONFIGS = {
    "plain": Config(length=63),
    "plain-padded": Config(length=64, vocab_size=64),
    "noisy": Config(length=63, vocab_size=32, noise=0.4, noise_ids=16),
    "fuzzy-training": Config(length=96, vocab_size=8, key_motif=(1, 3), value_motif=(1, 3)),
    "fuzzy-test": Config(length=96, vocab_size=9, key_motif=(3, 3), value_motif=(1, 3)),
    "fuzzy-noisy": Config(length=96, vocab_size=16, noise=0.5, noise_ids=7, key_motif=(2, 3), value_motif=(2, 2)),
    "shortest": Config(length=3, vocab_size=5),
}


def read(seen: list[int], config: Config) -> tuple[dict[tuple[int, ...], list[int]], list[int], list[int]]:
    """The table of all finished pairs, and the key and the part of the value that stand at the end."""
    table: dict[tuple[int, ...], list[int]] = {}
    key: list[int] = []
    value: list[int] = []
    first_value, first_noise = 1 + config.keys, 1 + config.keys + config.values
    for token in seen:
        if token == 0 or token >= first_noise or (token < first_value and value):  # a pair, if there was one, is finished
            if key:
                table.setdefault(tuple(key), value)
            key, value = [], []
        if 0 < token < first_value:
            key.append(token)
        elif first_value <= token < first_noise:
            value.append(token)
    return table, key, value


def solver(seen: list[int], config: Config) -> int | None:
    table, key, value = read(seen, config)
    known = table.get(tuple(key), [])
    if not value and len(key) < config.key_motif[1]:
        return None  # the key may go on
    return known[len(value)] if len(value) < len(known) else None


@pytest.mark.parametrize("name", CONFIGS)
def test_the_value_of_a_key_seen_before_is_the_answer(name: str) -> None:
    assert_solved("in_context_recall", CONFIGS[name], solver, count=16)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "shortest"])
def test_the_contract(name: str) -> None:
    assert_counted("in_context_recall", CONFIGS[name])
    assert_parsed("in_context_recall", CONFIGS[name])


@pytest.mark.parametrize("name", ["plain", "plain-padded", "noisy"])
def test_other_answers_score_at_chance(name: str) -> None:
    assert_chance("in_context_recall", CONFIGS[name])


@pytest.mark.parametrize("name", CONFIGS)
def test_the_last_pair_is_always_asked_for(name: str) -> None:
    batch = in_context_recall.generate(CONFIGS[name], 0, 0, 200)
    assert (batch.labels[:, -1] != IGNORE).all()


def test_distance_leads_back_to_the_same_place_of_the_first_pair() -> None:
    for config in CONFIGS.values():
        batch = in_context_recall.generate(config, 0, 0, 32)
        rows, at = np.nonzero(batch.labels.numpy() != IGNORE)
        back = at - batch.info["distance"][rows, at]
        assert (back < at).all()
        assert (batch.inputs.numpy()[rows, back + 1] == batch.labels.numpy()[rows, at]).all()
        assert (batch.inputs.numpy()[rows, back] == batch.inputs.numpy()[rows, at]).all()


def test_the_number_of_keys_and_the_share_of_noise() -> None:
    config = Config(length=255, vocab_size=32, noise=0.4, noise_ids=16)
    batch = in_context_recall.generate(config, 0, 0, 200)
    for row, keys in zip(batch.inputs.tolist(), batch.info["keys"], strict=True):
        assert len({token for token in row if 0 < token <= config.keys}) == keys
    assert abs(float((batch.inputs >= 16).double().mean()) - 0.4) < 0.02
    fuzzy = CONFIGS["fuzzy-training"]
    for row, keys in zip(*(part[:200] for part in (batch_rows(fuzzy), batch_keys(fuzzy))), strict=True):
        table, key, _ = read(row, fuzzy)
        assert len({*table, tuple(key)}) == keys


def batch_rows(config: Config) -> list[list[int]]:
    return in_context_recall.generate(config, 0, 0, 200).inputs.tolist()


def batch_keys(config: Config) -> np.ndarray:
    return in_context_recall.generate(config, 0, 0, 200).info["keys"]


def test_motifs_have_no_id_twice_and_every_size() -> None:
    config = CONFIGS["fuzzy-training"]
    sizes = set()
    for row in batch_rows(config)[:50]:
        table, _, _ = read(row, config)
        for key, value in table.items():
            assert len(set(key)) == len(key)
            assert len(set(value)) == len(value)
            sizes.add((len(key), len(value)))
    assert sizes == {(k, v) for k in (1, 2, 3) for v in (1, 2, 3)}


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"noise": 1.0, "noise_ids": 4}, "noise"),
        ({"noise": 0.2}, "noise_ids"),
        ({"noise_ids": 4}, "noise_ids"),
        ({"vocab_size": 4}, "vocab_size"),
        ({"vocab_size": 20, "noise": 0.2, "noise_ids": 16}, "vocab_size"),
        ({"length": 2}, "length"),
        ({"key_motif": (0, 2)}, "key_motif"),
        ({"value_motif": (3, 2)}, "value_motif"),
        ({"key_motif": (1, 8)}, "key_motif"),
        ({"vocab_size": 64, "key_motif": (1, 9)}, "key_motif"),
        ({"key_motif": (3, 3), "length": 6}, "length"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, object], place: str) -> None:
    assert_refused(lambda: Config(**changes), place)


def test_the_six_tasks_of_mad_are_there() -> None:
    assert [len(conditions) for conditions in mad.SUITE.values()] == [7, 10, 7, 9, 6, 7]
    for conditions in mad.SUITE.values():
        assert len(set(conditions)) == len(conditions)
        for task, train, test in conditions:
            for config in (train, test):
                assert TASKS[task].generate(config, 0, 0, 2).inputs.shape == (2, config.length)
            assert train.vocab_size == test.vocab_size
