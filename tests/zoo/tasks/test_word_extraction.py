"""Word extraction: solved by counting."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.zoo.tasks.contract import assert_counted, assert_parsed, assert_refused, assert_solved
from tests.zoo.tasks.haystacks import answers, assert_quick, assert_rate, picks
from zoo.tasks import word_extraction

Config = word_extraction.Config
CONFIGS = {
    "zeta": Config(vocab_size=64, length=80, words=12),
    "zeta-flat": Config(vocab_size=64, length=130, words=16, alpha=1.0, top=4),
    "common": Config(vocab_size=32, length=101, law="common", words=30, top=4, ratio=4.0, gap=0.5),
    "one": Config(vocab_size=8, length=30, words=6, top=1),
    "text": Config(form="text", length=500, words=8),
    "text-common": Config(form="text", length=900, law="common", words=12),
}


def ranking(seen: list[int], config: Config) -> list[tuple[object, int]]:
    """The words before the question, by falling counts."""
    if config.form == "text":
        body = bytes(seen).decode().partition("coded word.\n")[2].partition("\nThe most")[0]
        return list(Counter(body.split()).most_common())
    return list(Counter(token for token in seen[: seen.index(1)] if token > 1).most_common())


def solver(seen: list[int], config: Config) -> int | None:
    if config.form == "text":
        asked = re.search(r"\nThe most frequent words .* are: ([a-z ]*)$", bytes(seen).decode())
        if not asked:
            return None
        rest = " ".join(str(word) for word, _ in ranking(seen, config)[: config.top])[len(asked[1]) :]
        return ord(rest[0]) if rest[:1].strip() else None
    if 1 not in seen:
        return None
    given = len(seen) - seen.index(1) - 1
    word = ranking(seen, config)[given][0]
    assert isinstance(word, int)
    return word


@pytest.mark.parametrize("name", CONFIGS)
def test_the_most_frequent_words_are_the_answer(name: str) -> None:
    assert_solved("word_extraction", CONFIGS[name], solver, count=4)
    assert_counted("word_extraction", CONFIGS[name])
    assert_parsed("word_extraction", CONFIGS[name])


@pytest.mark.parametrize("name", CONFIGS)
def test_any_word_of_the_list_scores_at_chance(name: str) -> None:
    config, count = CONFIGS[name], 500
    batch, hits = word_extraction.generate(config, 1, 0, count), 0
    for row, answer, pick in zip(batch.inputs.tolist(), answers(batch), picks(count, config.words), strict=True):
        word = sorted((word for word, _ in ranking(row, config)), key=str)[pick]
        hits += (list(word.encode()) if isinstance(word, str) else [word]) == answer[: 6 if config.form == "text" else 1]
    assert_rate(hits, count, word_extraction.chance(config))


def test_answers_of_other_examples_score_like_any_word_of_the_vocabulary() -> None:
    given = answers(word_extraction.generate(CONFIGS["zeta"], 1, 0, 2000))
    assert_rate(sum(a[0] == b[0] for a, b in zip(given, given[1:] + given[:1], strict=True)), 2000, 1 / 62)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_list_has_the_counts_of_the_law(name: str) -> None:
    config = CONFIGS[name]
    batch = word_extraction.generate(config, 0, 0, 8)
    for i, row in enumerate(batch.inputs.tolist()):
        counts = [count for _, count in ranking(row, config)]
        assert counts == sorted(config.counts.tolist(), reverse=True)
        scored = batch.labels[i].numpy() >= 0
        per_answer = batch.info["rank"][i][scored]
        assert per_answer.tolist() == sorted(per_answer)
        assert (batch.info["count"][i][scored] == np.array(counts)[per_answer - 1]).all()
        assert (batch.info["margin"][i][scored] == np.array(counts)[per_answer - 1] - np.array(counts)[per_answer]).all()
        assert batch.info["margin"][i][scored].min() >= 1
    assert config.counts[: config.top + 1].tolist() == sorted(set(config.counts[: config.top + 1].tolist()), reverse=True)


def test_the_laws() -> None:
    common = Config(length=4000, law="common", words=100, top=5, ratio=10.0, gap=0.2).counts
    assert np.allclose((common[:5] - 1) / (common[4] - 1), [1.8, 1.6, 1.4, 1.2, 1.0], atol=0.02)
    assert abs((common[4] - 1) / (common[5] - 1) - 10) < 0.6
    zeta = Config(length=1 << 15, words=8).counts
    assert np.allclose(zeta / zeta[0], (1.0 + np.arange(8)) ** -2, atol=1e-3)
    long = Config(length=1 << 17, vocab_size=4096, words=500, law="common", top=10)
    assert_quick("word_extraction", long, replace(long, law="zeta"), Config(form="text", length=1 << 17))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"form": "bytes"}, "form"),
        ({"law": "normal"}, "law"),
        ({"form": "text", "vocab_size": 64}, "vocab_size"),
        ({"alpha": 1.0, "law": "common"}, "alpha"),
        ({"alpha": -1.0}, "alpha"),
        ({"ratio": 4.0}, "ratio"),
        ({"gap": 0.5}, "gap"),
        ({"top": 0}, "top"),
        ({"words": 3}, "words"),
        ({"words": 255}, "words"),
        ({"length": 26}, "length"),
        ({"length": 27}, "length"),
        ({"form": "text", "length": 200}, "length"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, object], place: str) -> None:
    assert_refused(lambda: Config(**changes), place)
    assert Config(form="text", length=600).slots >= 24
