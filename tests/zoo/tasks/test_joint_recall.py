"""Joint recall: solved by a table of contexts and keys."""

import numpy as np
import pytest

from tests.zoo.tasks.contract import assert_chance, assert_counted, assert_parsed, assert_refused, assert_solved
from tests.zoo.tasks.haystacks import assert_copies, assert_quick, assert_rate
from zoo.tasks import joint_recall

Config = joint_recall.Config
CONFIGS = {
    "small": Config(length=60, contexts=3, keys=3),
    "exact": Config(vocab_size=29, length=45, contexts=2, keys=5),
    "two-levels": Config(length=80, contexts=2, keys=4, levels=2),
    "two-levels-more": Config(vocab_size=100, length=200, contexts=4, keys=2, values=8, levels=2),
    "one-key": Config(length=40, contexts=6, keys=1, values=3),
}


def read(seen: list[int], config: Config) -> tuple[dict[tuple[int, ...], int], tuple[int, ...], bool]:
    """The table, the contexts and the key at the end, and whether the second table has begun."""
    n, first_value = config.names, config.vocab_size - config.values
    table: dict[tuple[int, ...], int] = {}
    outer = context = key = 0
    for token in seen[seen.index(1) + 1 :] if 1 in seen else []:
        if token >= first_value:
            table.setdefault((outer, context, key), token)
            key = 0
        elif token >= 3 + 2 * n:
            outer = token
        elif token >= 3 + n:
            key = token
        elif token >= 3:
            context = token
    return table, (outer, context, key), 2 in seen


def solver(seen: list[int], config: Config) -> int | None:
    table, place, again = read(seen, config)
    return table[place] if again and place[2] else None


@pytest.mark.parametrize("name", CONFIGS)
def test_the_value_of_the_key_in_its_context_is_the_answer(name: str) -> None:
    config = CONFIGS[name]
    assert_solved("joint_recall", config, solver)
    assert_counted("joint_recall", config)
    assert_parsed("joint_recall", config)
    assert_copies(joint_recall.generate(config, 0, 0, 32))
    assert_chance("joint_recall", config)
    assert ((joint_recall.generate(config, 0, 0, 4).labels >= 0).sum(1) == config.outer * config.contexts * config.keys).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_key_alone_is_not_enough(name: str) -> None:
    """Its value in a context drawn anew is right as often as `without_context` says."""
    config, hits, trials = CONFIGS[name], 0, 0
    random = np.random.Generator(np.random.Philox(1))
    batch = joint_recall.generate(config, 0, 0, 200)
    for row, labels in zip(batch.inputs.tolist(), batch.labels.tolist(), strict=True):
        table, _, _ = read(row[: row.index(2)], config)
        contexts = sorted({place[:2] for place in table})
        assert len(contexts) == config.outer * config.contexts
        assert len(table) == len(contexts) * config.keys
        for token, label in zip(row, labels, strict=True):
            if label >= 0:
                outer, context = contexts[random.integers(len(contexts))]
                hits, trials = hits + (table[outer, context, token] == label), trials + 1
    assert_rate(hits, trials, joint_recall.without_context(config))


def test_both_tables_have_an_order_of_their_own() -> None:
    config = CONFIGS["two-levels"]
    rows = joint_recall.generate(config, 0, 0, 200).inputs.numpy()
    begin = config.length - 2 * config.table
    first, second = rows[:, begin : begin + config.table], rows[:, begin + config.table + 1 :]
    assert 0.4 < (first[:, 0] == second[:, 0]).mean() < 0.6  # outer contexts
    assert 0.4 < (first[:, 1] == second[:, 1]).mean() < 0.6  # inner ones
    assert 0.15 < (first[:, 2] == second[:, 2]).mean() < 0.35  # keys
    assert (rows[:, begin - 1] == 1).all()
    assert (rows[:, : begin - 1] == 0).all()


def test_sizes_of_the_paper_and_long_rows() -> None:
    paper = Config(vocab_size=51, length=1057, contexts=16, keys=16)
    assert paper.names == 16
    assert 2 * paper.table + 1 == 1057
    assert_quick("joint_recall", paper, Config(vocab_size=1024, length=1 << 17, contexts=128, keys=250))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"levels": 3}, "levels"),
        ({"contexts": 1}, "contexts"),
        ({"keys": 0}, "keys"),
        ({"values": 1}, "values"),
        ({"vocab_size": 28}, "vocab_size"),
        ({"keys": 23, "length": 1000}, "vocab_size"),
        ({"length": 110}, "length"),
        ({"levels": 2}, "length"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, object], place: str) -> None:
    assert_refused(lambda: Config(**changes), place)
    assert Config(length=111, vocab_size=29).names == 5
