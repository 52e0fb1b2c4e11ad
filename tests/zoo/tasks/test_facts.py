"""Facts: solved by playing the events."""

import re
from dataclasses import replace

import numpy as np
import pytest

from tests.zoo.tasks.contract import assert_chance, assert_counted, assert_parsed, assert_refused, assert_solved
from tests.zoo.tasks.haystacks import assert_copies, assert_document, assert_quick
from zoo.tasks import IGNORE, facts

Config = facts.Config
SMALL = Config(vocab_size=64, length=60)
CONFIGS = {
    "one": SMALL,
    "two": replace(SMALL, facts=2, events=14, haystack="random"),
    "three": replace(SMALL, facts=3, events=16, objects=5, places=4, persons=2),
    "few-events": Config(vocab_size=32, length=20, facts=3, events=3, persons=1, objects=1, places=2),
    "text": Config(form="text", length=700, facts=1),
    "text-two": Config(form="text", length=800, facts=2, haystack="random"),
    "text-three": Config(form="text", length=900, facts=3, events=20, places=10, objects=12, persons=12, haystack="noise"),
}
VERBS = {"went to": 0, "took up": 1, "dropped": 2}


def played(told: list[tuple[int, object, object]]) -> tuple[dict[object, object], dict[object, list[object]]]:
    """Where each person is, and the places of each object that was ever taken, in their order."""
    at: dict[object, object] = {}
    hands: dict[object, object] = {}
    been: dict[object, list[object]] = {}
    for verb, person, thing in told:
        if verb == 0:
            assert at.get(person) != thing, "nobody goes where he is"
            at[person] = thing
            for carried in [x for x, holder in hands.items() if holder == person]:
                been[carried].append(thing)
        elif verb == 1:
            assert thing not in hands
            assert been.setdefault(thing, [at[person]])[-1] == at[person], "only what is here can be taken"
            hands[thing] = person
        else:
            assert hands.pop(thing) == person
    return at, been


def answer(told: list[tuple[int, object, object]], asked: object, config: Config) -> object:
    at, been = played(told)
    return at[asked] if config.facts == 1 else been[asked][-1 if config.facts == 2 else -2]


def solver(seen: list[int], config: Config) -> int | None:
    if config.form == "tokens":
        if len(seen) < 2 or seen[-2] != 3:
            return None
        told = [(verb, *seen[i + 1 : i + 3]) for i, verb in enumerate(seen[:-2]) if verb in (0, 1, 2)]
        place = answer(told, seen[-1], config)  # type: ignore[arg-type]
        assert isinstance(place, int)
        return place
    text = bytes(seen).decode()
    question = re.search(r"\nQuestion: Where \w+ (?:the )?(\w+).*\? Answer: in the (\w*)$", text)
    if not question:
        return None
    lines = re.findall(r"\n(\w{5}) (went to|took up|dropped) the (\w{6})\.\n", text)
    word = str(answer([(VERBS[verb], person, thing) for person, verb, thing in lines], question[1], config))
    return ord(word[len(question[2])]) if len(question[2]) < len(word) else None


@pytest.mark.parametrize("name", CONFIGS)
def test_the_place_is_the_answer(name: str) -> None:
    config = CONFIGS[name]
    assert_solved("facts", config, solver, count=4 if config.form == "text" else 8)
    if name != "few-events":  # which has too few different rows to compare
        assert_counted("facts", config)
    assert_parsed("facts", config)
    assert_copies(facts.generate(config, 0, 0, 32))


@pytest.mark.parametrize("name", ["one", "two", "three"])
def test_answers_of_other_examples_score_at_chance(name: str) -> None:
    assert_chance("facts", CONFIGS[name], count=1500)


def test_places_are_as_likely_as_one_another() -> None:
    for changes in ({}, {"facts": 2}, {"facts": 3}):
        config = replace(SMALL, events=16, **changes)  # type: ignore[arg-type]
        labels = facts.generate(config, 0, 0, 3000).labels
        counts = np.bincount(labels[labels != IGNORE].numpy())[-config.places :]
        assert counts.sum() == 3000
        assert (abs(counts - 500) < 4 * 500**0.5).all()


def test_persons_objects_and_verbs_all_occur() -> None:
    row = facts.generate(CONFIGS["text-three"], 0, 0, 64).inputs
    text = b"".join(bytes(line.tolist()) for line in row).decode()
    for words in (facts.PERSONS, facts.PLACES, facts.OBJECTS, facts.VERBS):
        assert len({len(word) for word in words}) == 1
        assert all(word in text for word in words)


def test_documents_and_long_rows() -> None:
    assert_document("facts", Config(form="text", haystack="text", length=700), facts.CLUE)
    long = Config(length=1 << 17, vocab_size=4096, events=200, persons=40, places=100, objects=60, facts=3)
    assert_quick("facts", long, Config(form="text", length=1 << 17, haystack="random", events=100))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"form": "bytes"}, "form"),
        ({"haystack": "needles"}, "haystack"),
        ({"haystack": "text"}, "haystack"),
        ({"facts": 4}, "facts"),
        ({"persons": 0}, "persons"),
        ({"places": 1}, "places"),
        ({"form": "text", "objects": 13}, "objects"),
        ({"events": 3}, "events"),
        ({"facts": 3, "events": 5}, "events"),
        ({"vocab_size": 24}, "vocab_size"),
        ({"length": 31}, "length"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, object], place: str) -> None:
    assert_refused(lambda: Config(**changes), place)
    assert Config(length=32).slots == 10
