"""Phone book: solved by reading the lines."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.zoo.tasks.contract import assert_counted, assert_parsed, assert_refused, assert_solved
from zoo.tasks import IGNORE, phonebook
from zoo.tasks.shared.base import uniforms

Config = phonebook.Config
TEXT = Config(length=300)
TOKENS = Config(form="tokens", length=120, digits=4, vocab_size=64)
CONFIGS = {
    "text": TEXT,
    "text-sparse": Config(length=400, entries=5, digits=7, shots=1),
    "text-no-shots": Config(length=200, shots=0, digits=3),
    "tokens": TOKENS,
    "tokens-few-names": Config(form="tokens", length=200, digits=3, vocab_size=16),
    "text-first": Config(length=300, question="first"),
    "tokens-first": Config(form="tokens", length=120, digits=4, vocab_size=64, shots=1, question="first"),
    "tokens-no-shots": Config(form="tokens", length=80, digits=4, vocab_size=4096, shots=0, entries=4),
}


def solver(seen: list[int], config: Config) -> int | None:
    return read_text(seen, config) if config.form == "text" else read_tokens(seen, config)


def read_text(seen: list[int], config: Config) -> int | None:
    parts = bytes(seen).decode().lstrip("\n").split("\n\n")
    name = parts.pop(0) if config.question == "first" else None
    if len(parts) < (3 if config.shots else 2):
        return None
    asked = re.fullmatch(r"(\w{5} \w{6}): (\d*)", parts[-1])
    if not asked:
        return None
    assert name in (None, asked[1])
    book = dict(re.findall(r"(\w{5} \w{6}): (\d+)", parts[0]))
    number = book[asked[1]]
    assert number.startswith(asked[2])
    return ord(number[len(asked[2])])


def read_tokens(seen: list[int], config: Config) -> int | None:
    row = list(seen)
    while row and row[0] == 0:
        row.pop(0)
    lines: list[list[int]] = [[]]
    for token in row:
        lines[-1].append(token) if token else lines.append([])
    name = lines[0] if config.question == "first" else None
    lines = lines[2:] if name else lines
    blanks = [i for i, line in enumerate(lines[:-1]) if not line]
    asked = lines[-1] if lines else []
    if len(blanks) < (2 if config.shots else 1) or len(asked) < 3:
        return None
    assert name in (None, asked[:2])
    book = {tuple(line[:2]): line[3:] for line in lines[: blanks[0]]}
    return book[asked[0], asked[1]][len(asked) - 3]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_number_in_the_book_is_the_answer(name: str) -> None:
    assert_solved("phonebook", CONFIGS[name], solver, count=4)
    assert_counted("phonebook", CONFIGS[name])
    assert_parsed("phonebook", CONFIGS[name])


@pytest.mark.parametrize("name", CONFIGS)
def test_numbers_of_other_entries_score_at_chance(name: str) -> None:
    """An entry of the book, none of the examples, taken at random."""
    config, count = CONFIGS[name], 3000
    batch = phonebook.generate(config, 1, 0, count)
    line, front = config.line, config.length - config.tokens(config.book)
    front += config.name + 2 if config.question == "first" else 0
    book = batch.inputs[:, front : front + config.book * line].reshape(count, config.book, line)
    numbers = book[..., -1 - config.digits : -1]
    shots = batch.inputs[:, front + config.book * line + 1 :][:, : config.shots * line].reshape(count, config.shots, line)
    candidates = ~(book[:, :, None] == shots[:, None]).all(-1).any(-1)
    assert (candidates.sum(1) == config.book - config.shots).all()
    guess = torch.where(candidates, torch.from_numpy(uniforms(("guess",), 0, count, config.book)), -1.0).argmax(1)
    right = (numbers[torch.arange(count), guess] == batch.labels[:, -config.digits :]).all(1).double().mean()
    chance = phonebook.chance(config)
    assert abs(right - chance) < 4 * (chance * (1 - chance) / count) ** 0.5


def test_single_digits_of_other_examples_score_a_tenth() -> None:
    for config in (TEXT, TOKENS):
        labels = phonebook.generate(config, 1, 0, 1000).labels[:, -config.digits :]
        assert abs((labels == labels.roll(1, 0)).double().mean() - 0.1) < 4 * 0.3 / labels.numel() ** 0.5


def test_names_differ_and_the_examples_are_others_than_the_one_asked_for() -> None:
    for row in phonebook.generate(Config(length=2000), 0, 0, 16).inputs:
        book, shots, asked = bytes(row.tolist()).decode().lstrip("\n").split("\n\n")
        names = re.findall(r"\w{5} \w{6}", book)
        assert len(set(names)) == len(names) == Config(length=2000).book == 77
        assert len(shots.split("\n")) == 2
        assert set(shots.split("\n")) < set(book.split("\n"))
        assert asked.partition(":")[0] not in shots
    assert len({*phonebook.FIRST, *phonebook.LAST}) == len(phonebook.FIRST) + len(phonebook.LAST)
    assert {len(name) for name in phonebook.FIRST} == {5}
    assert {len(name) for name in phonebook.LAST} == {6}


@pytest.mark.parametrize("name", CONFIGS)
def test_depth_and_distance_lead_to_the_entry(name: str) -> None:
    config = CONFIGS[name]
    batch = phonebook.generate(config, 0, 0, 300)
    for row in range(300):
        first = int(np.flatnonzero(batch.labels[row].numpy() != IGNORE)[0])
        at = first - int(batch.info["distance"][row])
        assert torch.equal(batch.inputs[row, at : at + config.digits], batch.labels[row, first:])
    assert (batch.info["depth"] == batch.info["entry"] / (config.book - 1)).all()
    assert len(np.unique(batch.info["entry"])) == config.book


def test_a_long_book_is_drawn_at_once() -> None:
    for config in (Config(length=1 << 17), Config(length=1 << 16, form="tokens", vocab_size=1024)):
        batch = phonebook.generate(config, 0, 0, 1)
        assert batch.inputs.shape == (1, config.length)
        assert 0 <= config.length - config.tokens(config.book) < config.line


def test_length_and_entries_are_free_of_one_another() -> None:
    config = replace(TEXT, entries=4)
    batch = phonebook.generate(config, 0, 0, 2)
    assert (batch.inputs[:, : 300 - config.tokens(4)] == 10).all()


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"form": "bytes"}, "form"),
        ({"question": "both"}, "question"),
        ({"vocab_size": 512}, "vocab_size"),
        ({"form": "tokens", "vocab_size": 15}, "vocab_size"),
        ({"digits": 0}, "digits"),
        ({"shots": -1}, "shots"),
        ({"entries": 3}, "entries"),
        ({"form": "tokens", "vocab_size": 16, "entries": 17}, "entries"),
        ({"length": 100}, "length"),
        ({"length": 300, "entries": 10}, "length"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, object], place: str) -> None:
    assert_refused(lambda: Config(**changes), place)
    assert Config(length=175).book == 4  # of them two shown again
