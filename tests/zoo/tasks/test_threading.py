"""Threading: solved by following the pairs until a value is no key."""

import re
from dataclasses import replace

import numpy as np
import pytest

from tests.zoo.tasks.contract import assert_counted, assert_parsed, assert_refused, assert_solved
from tests.zoo.tasks.haystacks import answers, assert_copies, assert_document, assert_quick, assert_rate, picks
from zoo.tasks import threading

Config = threading.Config
CONFIGS = {
    "forward": Config(vocab_size=64, length=100, size=2, threads=3),
    "backward": Config(vocab_size=64, length=100, size=2, threads=3, asked=2, steps=3, direction="backward"),
    "random": Config(vocab_size=64, length=120, size=1, threads=4, asked=4, direction="random", haystack="random"),
    "noise": Config(vocab_size=24, length=90, size=2, threads=2, steps=2, haystack="noise"),
    "one-step": Config(vocab_size=64, length=60, size=2, steps=1),
    "text": Config(form="text", length=500, threads=3, asked=2, steps=3, direction="random"),
    "text-noise": Config(form="text", length=500, threads=2, size=3, haystack="noise"),
}


def pairs(seen: list[int], config: Config) -> dict[object, object]:
    if config.form == "text":
        return dict(re.findall(r'"(\w+)": "(\w+)",\n', bytes(seen).decode()))
    n = config.size
    pairs = [seen[i + 1 : i + 1 + 2 * n] for i, token in enumerate(seen) if token == 0]
    return {tuple(pair[:n]): tuple(pair[n:]) for pair in pairs}


def follow(links: dict[object, object], key: object) -> list[object]:
    way = [key]
    while way[-1] in links:
        way.append(links[way[-1]])
    return way


def solver(seen: list[int], config: Config) -> int | None:
    if config.form == "text":
        question = bytes(seen).decode().rpartition("\nStart at ")[2]
        asked = re.fullmatch(r'the key "(\w+)" and follow .* That value is "(\w*)', question)
        if not asked:
            return None
        end = str(follow(pairs(seen, config), asked[1])[-1])
        return ord(end[len(asked[2])]) if len(asked[2]) < config.size else None
    if 1 not in seen:
        return None
    after = seen[max(i for i, token in enumerate(seen) if token == 1) + 1 :]
    if not config.size <= len(after) < 2 * config.size:
        return None
    end = follow(pairs(seen, config), tuple(after[: config.size]))[-1]
    assert isinstance(end, tuple)
    return end[len(after) - config.size]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_end_of_the_thread_is_the_answer(name: str) -> None:
    assert_solved("threading", CONFIGS[name], solver, count=4)
    assert_counted("threading", CONFIGS[name])
    assert_parsed("threading", CONFIGS[name])
    assert_copies(threading.generate(CONFIGS[name], 0, 0, 32))


@pytest.mark.parametrize("name", CONFIGS)
def test_ends_of_any_thread_score_at_chance(name: str) -> None:
    config, count = CONFIGS[name], 600
    batch, hits = threading.generate(config, 1, 0, count), 0
    for row, answer, pick in zip(batch.inputs.tolist(), answers(batch), picks(count, round(1 / threading.chance(config))), strict=True):
        links = pairs(row, config)
        starts = sorted((set(links) - set(links.values())), key=repr)
        ends = [way[-1] for way in (follow(links, key) for key in starts) if len(way) == config.steps + 1]
        end = tuple(ends[pick].encode()) if isinstance(ends[pick], str) else ends[pick]  # type: ignore[attr-defined]
        hits += end == tuple(answer[: config.size])
    assert_rate(hits, count, threading.chance(config))


def test_a_single_end_is_one_of_all_names() -> None:
    config = Config(vocab_size=28, length=60, size=1, steps=2, haystack="noise")
    given = answers(threading.generate(config, 1, 0, 1500))
    assert_rate(sum(a == b for a, b in zip(given, given[1:] + given[:1], strict=True)), 1500, threading.chance(config))
    assert threading.chance(config) == 1 / 16


@pytest.mark.parametrize("name", CONFIGS)
def test_pairs_of_a_thread_stand_in_the_chosen_order(name: str) -> None:
    config, orders = CONFIGS[name], set()
    batch = threading.generate(config, 0, 0, 100)
    for row in batch.inputs.tolist():
        links = pairs(row, config)
        assert len(links) == config.pairs
        assert len({*links, *links.values()}) == config.names
        place = {key: i for i, key in enumerate(links)}
        for key in set(links) - set(links.values()):
            way = [place[key] for key in follow(links, key)[:-1]]
            if len(way) == config.steps:
                orders.add(tuple(np.argsort(way)))
    forward = tuple(range(config.steps))
    if config.direction != "random":
        assert orders == {forward if config.direction == "forward" else forward[::-1]}
    else:
        assert len(orders) > 4
    spans = batch.info["span"][batch.labels.numpy() >= 0]
    assert (spans >= (config.steps - 1) * config.width).all()


def test_documents_and_long_rows() -> None:
    assert_document("threading", Config(form="text", haystack="text", length=600), b'"a": "b"')
    long = Config(length=1 << 17, vocab_size=4096, size=2, threads=8, asked=8, steps=16)
    assert_quick("threading", long, replace(long, vocab_size=64, size=5), Config(form="text", length=1 << 17, size=6))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"form": "bytes"}, "form"),
        ({"haystack": "needles"}, "haystack"),
        ({"haystack": "text"}, "haystack"),
        ({"vocab_size": 13}, "vocab_size"),
        ({"direction": "sideways"}, "direction"),
        ({"steps": 0}, "steps"),
        ({"asked": 0}, "asked"),
        ({"asked": 2}, "threads"),
        ({"size": 0}, "size"),
        ({"size": 1, "vocab_size": 32}, "size"),
        ({"length": 43}, "length"),
        ({"form": "text", "length": 200}, "length"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, object], place: str) -> None:
    assert_refused(lambda: Config(**changes), place)
    assert Config(length=44).slots == 4
