"""Retrieval, induction and entropy of heads, on models whose heads are known."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

import zoo
from tests.zoo.measures.hand_built import even, finder, two_layers
from zoo.measures import attention_entropy, induction_heads, passkey, retrieval_heads
from zoo.measures.induction_heads import _grams, _matches
from zoo.measures.shared.base import Result
from zoo.measures.shared.statistics import wilson
from zoo.tasks.shared.base import Batch

PIECES = [1, 7, 100_000]
HEAD = "layer=0;block=A;head={}"


def found_by(call_tokens: int, taps: int = 2, **changes: Any) -> Result:
    values: dict[str, Any] = {"form": "tokens", "lengths": (8,), "depths": (0.5, 1.0), "examples": 2, "ablation_examples": 3, "draws": 2}
    config = retrieval_heads.Config(**values | {"heads": (1, 2, 3)} | changes, call_tokens=call_tokens)
    return retrieval_heads.run(finder(16, taps), config, 0)


@pytest.mark.parametrize("call_tokens", PIECES)
def test_a_retrieval_head_is_found_and_needed(call_tokens: int) -> None:
    found = found_by(call_tokens, reach=0)
    assert found.row("score", HEAD.format(0))[2:] == pytest.approx(tuple(wilson(4, 4)))
    assert [found.row("score", HEAD.format(h)).value for h in (1, 2, 3)] == [0, 0, 0]
    assert found.row("share", "threshold=0.1")[2:] == (0.25, 0.25, 0.25, 4)
    assert found.row("accuracy", "ablated=none;heads=0").value == 1
    assert found.row("accuracy", "ablated=none;heads=0").n == 6
    for k in (1, 2):
        assert found.row("accuracy", f"ablated=top;heads={k}").value == 0
        assert found.row("drop", f"ablated=top;heads={k}")[2:] == (1, 1, 1, 6)
        assert found.row("accuracy", f"ablated=random;heads={k}")[2:] == (1, 1, 1, 2)
        assert found.row("gap", f"heads={k}")[2:] == (1, 1, 1, 6)
    assert not [r for r in found.rows if "heads=3" in str(r.condition)], "of four heads there are no three others"
    assert found.row("chance").value == 1 / 8


def test_a_key_holds_what_its_convolution_brings() -> None:
    """With three taps the head looks at the key after the needle, where the convolution has brought both of its tokens."""
    assert found_by(64, taps=3, heads=()).row("accuracy", "ablated=none;heads=0").value == 1
    for reach, score in ((None, 1), (0, 0), (1, 1)):
        assert found_by(64, taps=3, reach=reach, heads=()).row("score", HEAD.format(0)).value == score


def test_ablation_asks_other_examples_than_detection(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def noted(task: passkey.Task, data: None) -> tuple[passkey.Draw, float]:
        generate, chance = passkey.drawn(task, data)

        def draw(seed: int, start: int, count: int) -> Batch:
            asked.extend(range(start, start + count))
            return generate(seed, start, count)

        return draw, chance

    monkeypatch.setattr(retrieval_heads, "drawn", noted)
    found_by(9, heads=())
    assert len(asked) == 2 * (2 + 3)
    assert len(set(asked)) == len(asked), "no example twice, neither of another depth nor to detect with and to ablate on"


CONFIG = induction_heads.Config(span=8, ngram_length=32, alphabet=4, orders=(1, 2, 3), examples=2)


def induction(call_tokens: int) -> Result:
    return induction_heads.run(two_layers(12), replace(CONFIG, call_tokens=call_tokens), 3)


@pytest.mark.parametrize("call_tokens", PIECES)
def test_an_induction_head(call_tokens: int) -> None:
    found = induction(call_tokens)
    back, find, idle = "layer=0;block=P;head=0", "layer=1;block=I;head=0", "layer=1;block=I;head=1"
    assert found.row("prefix_matching", find)[2:] == pytest.approx((1 - 0.5 / 7, 1 - 0.5 / 7, 1 - 0.5 / 7, 2), abs=1e-6)
    assert found.row("previous_token", back)[2:] == pytest.approx((1, 1, 1, 2), abs=1e-6)
    assert found.row("prefix_matching", back).value == pytest.approx(0, abs=1e-6)
    for metric in ("prefix_matching", "previous_token"):
        assert found.row(metric, idle).value == pytest.approx(found.row(f"chance_{metric}").value)
    assert found.row("prefix_held", find) == found.row("prefix_matching", find)._replace(metric="prefix_held")
    assert found.row("copying", find).value > 1
    assert found.row("copying", back).value > 1, "the one can't find without the other"
    assert found.row("copying", idle).value == 0
    assert found.row("induction").value < -1
    first, second = (found.row("loss", f"copy={copy}").value for copy in ("first", "second"))
    assert found.row("induction").value == pytest.approx(second - first)


def test_a_convolution_moves_the_key_that_holds_the_token() -> None:
    found = induction_heads.run(finder(12, taps=3), CONFIG, 3)
    find, idle = HEAD.format(0), HEAD.format(1)
    assert found.row("prefix_matching", find).value == pytest.approx(0, abs=1e-6)
    assert found.row("prefix_held", find).value == pytest.approx(1)
    assert found.row("prefix_held", idle).value == pytest.approx(found.row("chance_prefix_held", idle).value)
    assert found.row("chance_prefix_held", idle).value == pytest.approx(3 * found.row("chance_prefix_matching").value)
    assert found.row("copying", find).value > 1


def test_ngram_heads() -> None:
    found = induction(64)
    find, idle = "layer=1;block=I;head=0", "layer=1;block=I;head=1"
    for n in (1, 2, 3):
        assert found.row("ngram", f"{idle};n={n}").value == pytest.approx(found.row("chance_ngram", f"n={n}").value)
        assert found.row("ngram_excess", f"{idle};n={n}").value == pytest.approx(0, abs=1e-9)
    tokens = _grams(CONFIG, two_layers(12), 3)
    shares, beyond = zip(*(_one_gram(row) for row in tokens.tolist()), strict=True)
    assert found.row("ngram", f"{find};n=1").value == pytest.approx(sum(shares) / 2, abs=1e-6)
    assert found.row("ngram_excess", f"{find};n=1").value == pytest.approx(sum(beyond) / 2, abs=1e-6)
    for n in (2, 3):
        assert found.row("ngram", f"{find};n={n}").value > 0.1
        assert found.row("ngram_excess", f"{find};n={n}").value == pytest.approx(0, abs=1e-6), "one token explains all that it finds"


def _one_gram(x: list[int]) -> tuple[float, float]:
    """What the head of layer 1 gives M_1, and how much more than even attention: it also finds the first token by itself, and itself
    where the token before it is the same."""
    shares, beyond = [], []
    for i, token in enumerate(x):
        found = sum(x[j - 1] == token for j in range(1, i))
        if found:
            shares.append(found / (found + (x[i - 1] == token) + (x[0] == token)))
            beyond.append(shares[-1] - found / (i + 1))
    return sum(shares) / len(shares), sum(beyond) / len(beyond)


def test_matches_are_those_of_the_definition() -> None:
    tokens = torch.randint(3, (2, 15), generator=torch.Generator().manual_seed(0))
    for n in (1, 2, 3):
        found = _matches(tokens, n)
        for b in range(2):
            x = tokens[b].tolist()
            for i in range(15):
                expected = [n <= j < i and x[i - n + 1 : i + 1] == x[j - n : j] and i >= n - 1 for j in range(15)]
                assert found[b, i].tolist() == expected


def test_a_model_without_attention_has_its_loss() -> None:
    model = zoo.build({"d_model": 8, "vocab_size": 16, "blocks": {"M": {"type": "mamba2", "d_state": 4, "head_dim": 4}}, "pattern": "M"})
    config = induction_heads.Config(span=8, ngram_length=40, alphabet=4, examples=3)
    assert {r.metric for r in induction_heads.run(model, config, 0).rows} == {
        "loss", "induction", "chance_prefix_matching", "chance_previous_token", "chance_ngram"
    }  # fmt: skip
    sizes = retrieval_heads.Config(form="tokens", lengths=(12,), depths=(0.5,), examples=2, ablation_examples=2)
    assert [(str(r.condition), r.metric) for r in retrieval_heads.run(model, sizes, 0).rows] == [
        ("ablated=none;heads=0", "accuracy"), ("", "chance")
    ]  # fmt: skip


def entropies(model: zoo.Model, call_tokens: int = 100, **changes: int) -> Result:
    config = attention_entropy.Config(length=40, documents=2, call_tokens=call_tokens, **changes)
    documents = [torch.randint(11, (40,), generator=torch.Generator().manual_seed(i)) for i in range(2)]
    return attention_entropy.run(model, config, 0, data=documents)


BUCKETS = {1: range(1, 2), 2: range(2, 4), 4: range(4, 8), 8: range(8, 16), 16: range(16, 32), 32: range(32, 40)}


@pytest.mark.parametrize("call_tokens", PIECES)
def test_even_attention_has_the_entropy_of_all_it_sees(call_tokens: int) -> None:
    found = entropies(even(), call_tokens, recent=4)
    for h in (0, 1):
        assert found.row("slope", HEAD.format(h))[2:] == pytest.approx((1, 1, 1, 2))
        for start, positions in BUCKETS.items():
            where, n = f"{HEAD.format(h)};position={start}", len(positions)
            assert found.row("entropy", where).value == pytest.approx(sum(math.log(i + 1) for i in positions) / n)
            assert found.row("keys", where).value == pytest.approx(sum(i + 1 for i in positions) / n)
            assert found.row("first", where).value == pytest.approx(sum(1 / (i + 1) for i in positions) / n)
            assert found.row("recent", where).value == pytest.approx(sum(min(1, 4 / (i + 1)) for i in positions) / n)
            assert found.row("other", where).value == 0


def test_a_window_bounds_entropy() -> None:
    found = entropies(even(window=4), 7)
    for start in (4, 8, 16, 32):
        assert found.row("entropy", f"{HEAD.format(0)};position={start}").value == pytest.approx(math.log(4))
        assert found.row("first", f"{HEAD.format(0)};position={start}").value == 0


def test_one_hot_attention_has_none() -> None:
    found = entropies(two_layers(11))
    for start in BUCKETS:
        assert found.row("entropy", f"layer=0;block=P;head=0;position={start}").value == pytest.approx(0, abs=1e-9)
        assert found.row("keys", f"layer=0;block=P;head=0;position={start}").value == pytest.approx(1)
    assert found.row("slope", "layer=0;block=P;head=0").value == pytest.approx(0, abs=1e-9)


def test_inserted_tokens_are_told_apart() -> None:
    found = entropies(even(tokens={"prefix": {"count": 3}}), 7, recent=4)
    for start, positions in BUCKETS.items():
        where, n = f"{HEAD.format(0)};position={start}", len(positions)
        assert found.row("other", where).value == pytest.approx(sum(3 / (i + 4) for i in positions) / n)
        assert found.row("first", where).value == pytest.approx(sum(1 / (i + 4) for i in positions) / n)
        assert found.row("recent", where).value == pytest.approx(sum(min(i + 1, 4) / (i + 4) for i in positions) / n)


def test_few_queries_of_a_bucket_are_evenly_spaced() -> None:
    assert [b.tolist() for b in attention_entropy.Config(length=40, queries=3).buckets] == [
        [1], [2, 3], [4, 5, 6], [8, 10, 13], [16, 21, 26], [32, 34, 37]
    ]  # fmt: skip
    found = entropies(even(), 9, queries=3)
    assert found.row("keys", f"{HEAD.format(0)};position=16").value == pytest.approx((17 + 22 + 27) / 3)


def test_a_differential_head_without_difference() -> None:
    """Both maps even: what is left of the first is even, whatever is taken away."""
    found = entropies(even(type="differential"))
    assert found.row("entropy", f"{HEAD.format(1)};position=1").value == pytest.approx(math.log(2))
    assert found.row("slope", HEAD.format(1)).value == pytest.approx(1)
