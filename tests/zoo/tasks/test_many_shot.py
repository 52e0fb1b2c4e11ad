"""Many-shot classification: solved by the nearest example."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from blocks.errors import ConfigError
from tests.zoo.tasks.contract import assert_counted, assert_parsed, assert_refused, assert_solved, assert_well_formed
from tests.zoo.tasks.haystacks import answers, assert_copies, assert_quick, assert_rate
from zoo.tasks import HELD_OUT, many_shot

Config = many_shot.Config
CONFIGS = {
    "last": Config(vocab_size=64, length=100, classes=5),
    "every": Config(vocab_size=64, length=200, classes=7, ask="every"),
    "noisy": Config(vocab_size=32, length=160, classes=4, size=13, noise=0.15, ask="every"),
    "small": Config(vocab_size=16, length=90, classes=6, size=4, noise=0.0),
    "large": Config(vocab_size=400, length=2000, classes=174),
}
TEXT = Config(form="text", length=300, classes=3, size=12, noise=0.0)
TEXTS = {"drawn": TEXT, "drawn-every": replace(TEXT, ask="every"), "given": replace(TEXT, labels="given", ask="every")}
DOCUMENTS = {name: [f"{name}, {i} of {name}".encode() for i in range(4)] for name in ("act", "bill", "creek", "dam", "eel")}


def solver(seen: list[int], config: Config) -> int | None:
    width = config.size + 2
    if seen[-1] != 1:
        return None
    examples = [seen[i - config.size : i + 2] for i, token in enumerate(seen) if token == 1]
    labels = {example[-1] for example in examples[:-1]}
    if len(labels) < config.classes or (config.ask == "last" and len(seen) <= config.length - 1):
        return None
    query = examples[-1][: config.size]
    distances = {}
    for example in examples[:-1]:
        assert len(example) == width
        far = sum(a != b for a, b in zip(example, query, strict=False))
        distances[example[-1]] = min(far, distances.get(example[-1], width))
    nearest = sorted(distances.values())
    assert nearest[0] < nearest[1]
    return min(distances, key=lambda label: distances[label])


@pytest.mark.parametrize("name", CONFIGS)
def test_the_label_of_the_nearest_example_is_the_answer(name: str) -> None:
    assert_solved("many_shot", CONFIGS[name], solver, count=4)
    assert_counted("many_shot", CONFIGS[name])
    assert_parsed("many_shot", CONFIGS[name])
    assert_copies(many_shot.generate(CONFIGS[name], 0, 0, 32))


@pytest.mark.parametrize("name", CONFIGS)
def test_labels_of_any_class_score_at_chance(name: str) -> None:
    config, hits = CONFIGS[name], 0
    batch = many_shot.generate(config, 1, 0, 600)
    random = np.random.Generator(np.random.Philox(1))
    for row, answer in zip(batch.inputs.tolist(), answers(batch), strict=True):
        labels = sorted({label for arrow, label in pairwise(row) if arrow == 1})
        assert len(labels) == config.classes
        hits += labels[random.integers(len(labels))] == answer[-1]
    assert_rate(hits, 600, many_shot.chance(config))
    batch_info = many_shot.generate(config, 0, 0, 4).info
    assert (batch_info["shots"] == (config.length + 1) // (config.size + 2)).all()


def test_labels_are_drawn_for_each_row() -> None:
    given = answers(many_shot.generate(CONFIGS["last"], 1, 0, 2000))
    assert_rate(sum(a == b for a, b in zip(given, given[1:] + given[:1], strict=True)), 2000, 1 / 31)


def test_examples_shown_are_counted() -> None:
    config = CONFIGS["every"]
    batch = many_shot.generate(config, 0, 0, 16)
    for row, labels, shown in zip(batch.inputs.tolist(), batch.labels.tolist(), batch.info["shown"], strict=True):
        for t, label in enumerate(labels):
            before = [b for a, b in pairwise(row[: t + 1]) if a == 1]
            assert shown[t] == (before.count(label) if label >= 0 else 0)
            assert label < 0 or shown[t] >= 1


def read(seen: list[int]) -> tuple[dict[str, str], str, str] | None:
    """The labels of the words that texts begin with, the word of the last text, and what is given of its label."""
    parts = bytes(seen).decode().lstrip("\n").split("\n\n")
    if "\nLabel: " not in parts[-1]:
        return None
    pairs = [tuple(part.split("\nLabel: ")) for part in parts]
    return {text.split(",")[0]: label for text, label in pairs[:-1]}, pairs[-1][0].split(",")[0], pairs[-1][1]


@pytest.mark.parametrize("name", TEXTS)
def test_the_label_of_texts_of_the_same_class_is_the_answer(name: str) -> None:
    config = TEXTS[name]
    for seed in range(3):
        batch = many_shot.generate(config, seed, 0, 8, documents=DOCUMENTS)
        assert_well_formed(batch, config, 8)
        assert_copies(batch)
        for row, expected in zip(batch.inputs.tolist(), batch.labels.tolist(), strict=True):
            for t in range(len(row)):
                example = read(row[: t + 1])
                answer = -100
                if example and len(example[0]) == config.classes:
                    assert example[1] in example[0]
                    rest = example[0][example[1]][len(example[2]) :]
                    answer = ord(rest[0]) if rest else -100
                last = t >= config.length - len(example[0][example[1]]) if example and example[1] in example[0] else False
                assert expected[t] == (answer if config.ask == "every" or last else -100)


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_drawn_by_count_and_at_chance(name: str) -> None:
    config, hits = TEXTS[name], 0
    whole = many_shot.generate(config, 5, 0, 8, documents=DOCUMENTS)
    part = many_shot.generate(config, 5, 3, 2, documents=DOCUMENTS)
    assert torch.equal(part.inputs, whole.inputs[3:5])
    assert torch.equal(part.labels, whole.labels[3:5])
    for seed, start in ((6, 0), (5, HELD_OUT)):
        assert not torch.equal(many_shot.generate(config, seed, start, 8, documents=DOCUMENTS).inputs, whole.inputs)
    random = np.random.Generator(np.random.Philox(1))
    for row in many_shot.generate(config, 1, 0, 600, documents=DOCUMENTS).inputs.tolist():
        example = read(row)
        assert example
        labels = example[0]
        assert len(labels) == config.classes
        hits += sorted(labels)[random.integers(len(labels))] == example[1]
    assert_rate(hits, 600, many_shot.chance(config))
    assert_parsed("many_shot", config)


def test_the_last_text_is_none_of_those_before() -> None:
    config = replace(TEXT, size=40, length=600)
    for row in many_shot.generate(config, 0, 0, 100, documents=DOCUMENTS).inputs.tolist():
        texts = [part.split("\nLabel: ")[0] for part in bytes(row).decode().lstrip("\n").split("\n\n")]
        assert texts[-1] not in texts[:-1]


def test_documents_that_will_not_do_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs documents"):
        many_shot.generate(TEXT, 0, 0, 1)
    with pytest.raises(ConfigError, match="uses no documents"):
        many_shot.generate(Config(), 0, 0, 1, documents=DOCUMENTS)
    for bad in ({"a": [b"x", b"y"]}, {**DOCUMENTS, "few": [b"x"]}):
        with pytest.raises(ConfigError):
            many_shot.generate(TEXT, 0, 0, 1, documents=bad)
    with pytest.raises(ConfigError, match="shorter names"):
        many_shot.generate(replace(TEXT, labels="given"), 0, 0, 1, documents={**DOCUMENTS, "n" * 99: [b"x", b"y"]})


def test_long_rows() -> None:
    assert_quick("many_shot", Config(length=1 << 17, vocab_size=4096, classes=1024, size=16), Config(length=1 << 16, vocab_size=64))
    text = replace(TEXT, length=1 << 16, classes=5)
    assert many_shot.generate(text, 0, 0, 1, documents=DOCUMENTS).inputs.shape == (1, 1 << 16)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"form": "bytes"}, "form"),
        ({"ask": "first"}, "ask"),
        ({"labels": "own"}, "labels"),
        ({"labels": "given"}, "labels"),
        ({"classes": 1}, "classes"),
        ({"size": 0}, "size"),
        ({"form": "text"}, "noise"),
        ({"form": "text", "noise": 0.0, "vocab_size": 64}, "vocab_size"),
        ({"form": "text", "noise": 0.0, "classes": 1001}, "classes"),
        ({"vocab_size": 17}, "vocab_size"),
        ({"vocab_size": 18, "size": 9}, "size"),
        ({"noise": 0.25}, "noise"),
        ({"noise": 0.2}, "noise"),
        ({"length": 88}, "length"),
        ({"form": "text", "noise": 0.0, "length": 100}, "length"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, object], place: str) -> None:
    assert_refused(lambda: Config(**changes), place)
    assert Config(length=89, vocab_size=26).prime == 11
