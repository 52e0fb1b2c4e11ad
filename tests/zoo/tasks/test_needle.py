"""Needles: solved by reading them all."""

import re
from dataclasses import replace

import numpy as np
import pytest

from tests.zoo.tasks.contract import assert_counted, assert_parsed, assert_refused, assert_solved
from tests.zoo.tasks.haystacks import answers, assert_copies, assert_document, assert_quick, assert_rate, picks
from zoo.tasks import needle
from zoo.tasks.shared import haystack

Config = needle.Config
CONFIGS = {
    "single": Config(vocab_size=64, length=60, value_size=1),
    "random": Config(vocab_size=64, length=80, haystack="random", keys=3),
    "many": Config(vocab_size=32, length=100, haystack="random", keys=4, values=2, queries=3, value_size=2, key_size=1),
    "needles": Config(vocab_size=64, length=100, haystack="needles", queries=2, value_size=2),
    "needles-several": Config(vocab_size=64, length=101, haystack="needles", values=3, value_size=1, depth=0.5),
    "text": Config(form="text", length=500, value_size=3),
    "text-random": Config(form="text", length=900, haystack="random", keys=3, values=2, queries=2),
    "text-needles": Config(form="text", length=800, haystack="needles", values=2, depth=1.0),
}


def needles(seen: list[int], config: Config) -> dict[object, list[list[int]]]:
    values_of: dict[object, list[list[int]]] = {}
    if config.form == "text":
        for key, value in re.findall(r"\nOne of the special magic numbers for (\w+-\w+) is: (\d+)\.\n", bytes(seen).decode()):
            values_of.setdefault(key, []).append(list(value.encode()))
        return values_of
    for i in (i for i, token in enumerate(seen) if token == 0):
        key = tuple(seen[i + 1 : i + 1 + config.key_size])
        values_of.setdefault(key, []).append(seen[i + 1 + config.key_size :][: config.value_size])
    return values_of


def solver(seen: list[int], config: Config) -> int | None:
    if config.form == "text":
        question = bytes(seen).decode().rpartition("\nWhat are all the special magic numbers for ")[2]
        asked = re.fullmatch(r"(\w+-\w+) mentioned in the provided text\? They are ([\d, ]*)", question)
        if not asked:
            return None
        listed = b", ".join(bytes(value) for value in needles(seen, config)[asked[1]])
        rest = listed[len(asked[2]) :]
        return rest[0] if rest[:1].isdigit() else None
    if 1 not in seen:
        return None
    question_at = max(i for i, token in enumerate(seen) if token == 1)
    asked_key, given = seen[question_at + 1 :][: config.key_size], seen[question_at + 1 + config.key_size :]
    if len(asked_key) < config.key_size:
        return None
    flat = [token for value in needles(seen, config)[tuple(asked_key)] for token in value]
    return flat[len(given)] if len(given) < len(flat) else None


@pytest.mark.parametrize("name", CONFIGS)
def test_the_values_of_the_key_are_the_answer(name: str) -> None:
    assert_solved("needle", CONFIGS[name], solver, count=4)
    assert_counted("needle", CONFIGS[name])
    assert_parsed("needle", CONFIGS[name])
    assert_copies(needle.generate(CONFIGS[name], 0, 0, 32))


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "single"])
def test_values_of_any_key_score_at_chance(name: str) -> None:
    config, count = CONFIGS[name], 600
    if config.hidden == 1:
        config = replace(config, value_size=1)
    batch, hits = needle.generate(config, 1, 0, count), 0
    for row, answer, pick in zip(batch.inputs.tolist(), answers(batch), picks(count, config.hidden), strict=True):
        hidden = list(needles(row, config).values())
        assert len(hidden) == config.hidden
        hits += config.hidden > 1 and hidden[pick][0] == answer[: config.value_size]
    if config.hidden > 1:
        assert_rate(hits, count, needle.chance(config))


@pytest.mark.parametrize("name", ["single", "text"])
def test_values_of_other_examples_score_at_chance(name: str) -> None:
    config = replace(CONFIGS[name], value_size=1)
    given = answers(needle.generate(config, 1, 0, 1000))
    assert_rate(sum(a == b for a, b in zip(given, given[1:] + given[:1], strict=True)), 1000, needle.chance(config))
    assert needle.chance(config) == 1 / config.values_base


def test_the_depth_is_kept_or_spread() -> None:
    config = CONFIGS["single"]
    for depth in (0.0, 0.5, 1.0):
        for several in (config, CONFIGS["needles"], CONFIGS["many"]):
            chosen = replace(several, depth=depth)
            batch = needle.generate(chosen, 0, 0, 16)
            first = batch.info["query"] == 1
            nearest = np.where(first, np.abs(batch.info["depth"] - depth), 2).min(1)
            assert (nearest <= 0.5 / max(chosen.slots - 1, 1) + 1e-9).all()
    batch = needle.generate(config, 0, 0, 600)
    depths = batch.info["depth"][batch.info["query"] == 1]
    assert len(np.unique(depths)) == config.slots
    assert np.abs(np.histogram(depths, bins=config.slots)[0] * config.slots / 600 - 1).max() < 0.5


def test_the_haystack_runs_on_around_the_needles() -> None:
    row = bytes(needle.generate(CONFIGS["text"], 0, 0, 1).inputs[0].tolist()).decode()
    body = row[len(needle.HEADER) : row.index("\nWhat are")]
    assert re.sub(r"\nOne of .*\.\n", "", body) in haystack.SENTENCES.decode() * 6
    assert_document("needle", Config(form="text", haystack="text", length=800), b"A Magic Number. ")


def test_the_suite_of_ruler_and_long_rows() -> None:
    assert len(needle.RULER) == 8
    for changes in needle.RULER.values():
        for base in (Config(), Config(form="text", length=2048)):
            assert needle.generate(replace(base, **changes), 0, 0, 2).inputs.shape == (2, base.length)  # type: ignore[arg-type]
    long = Config(length=1 << 17, vocab_size=4096, haystack="needles", key_size=2)
    assert_quick("needle", long, replace(long, haystack="random", vocab_size=64), Config(form="text", length=1 << 17, haystack="needles"))


def test_samples_are_even_and_all_different() -> None:
    for high, tolerance in ((7, 0.08), (haystack.DECK + 4, 0.12)):
        drawn = haystack.sample(("s",), 0, 14_000, 3, high)
        assert (np.diff(np.sort(drawn, axis=1), axis=1) > 0).all()
        for column in drawn.T:
            assert np.abs(np.bincount(column * 7 // high, minlength=7) / 2000 - 1).max() < tolerance
    for high in (7, haystack.DECK + 1):
        assert (np.sort(haystack.sample(("s",), 0, 2, high, high), axis=1) == np.arange(high)).all()


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"form": "bytes"}, "form"),
        ({"haystack": "essays"}, "haystack"),
        ({"haystack": "text"}, "haystack"),
        ({"vocab_size": 15}, "vocab_size"),
        ({"form": "text", "vocab_size": 64}, "vocab_size"),
        ({"values": 0}, "values"),
        ({"queries": 0}, "queries"),
        ({"keys": 2, "queries": 3}, "keys"),
        ({"keys": 4, "haystack": "needles"}, "keys"),
        ({"depth": 1.5}, "depth"),
        ({"value_size": 0}, "value_size"),
        ({"key_size": 9}, "key_size"),
        ({"key_size": 0}, "key_size"),
        ({"form": "text", "key_size": 3, "length": 900}, "key_size"),
        ({"vocab_size": 16, "haystack": "needles"}, "key_size"),
        ({"length": 12}, "length"),
        ({"form": "text", "length": 200}, "length"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, object], place: str) -> None:
    assert_refused(lambda: Config(**changes), place)
    assert Config(length=13).slots == 1
