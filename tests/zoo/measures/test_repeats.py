"""Repeated n-grams in texts made by hand, and a reader that knows them."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zoo
from blocks.errors import ConfigError
from zoo.config.schema import parse
from zoo.measures import repeats
from zoo.measures.repeats import n_grams, not_common, repeated
from zoo.measures.shared.base import Result
from zoo.model.model import Model

VOCAB = 32


class Copier(Model):
    """Gives a half to the token that followed the last time the present one was read, the other half evenly to all; to each its share
    where the present token is new."""

    def __init__(self) -> None:
        super().__init__(zoo.load_model({"d_model": VOCAB, "vocab_size": VOCAB, "blocks": {"F": {"type": "mlp"}}, "pattern": "F"}))
        self.embedding.weight = nn.Parameter(torch.eye(VOCAB))

    def hidden(self, tokens: Tensor, state: Any = None, **_: Any) -> tuple[Tensor, Any]:
        text = tokens if state is None else torch.cat([state, tokens], 1)
        said = [[self._law(row, i) for i in range(text.shape[1] - tokens.shape[1], text.shape[1])] for row in text.tolist()]
        return torch.tensor(said).log(), text

    def _law(self, row: list[int], i: int) -> list[float]:
        follows = [row[j + 1] for j in range(i) if row[j] == row[i]]
        even = (0.5 if follows else 1.0) / VOCAB
        return [even + 0.5 * (bool(follows) and token == follows[-1]) for token in range(VOCAB)]


#            0  1  2  3  4  5  6  7  8  9 10 11 12
FIRST = [1, 2, 3, 1, 2, 4, 5, 6, 7, 1, 2, 3, 8]  # bigram 1 2 again at 4 (3 back) and at 10 (6 back, the 2nd time), 2 3 at 11 (9 back)
SECOND = [9, 8, 9, 8, 9, 8]  # 9 8 at 3 and 5, 8 9 at 4, each 2 back
DATA = [torch.tensor(FIRST), torch.tensor(SECOND)]
CONFIG = repeats.Config(n=2, window=None)
HIT, NEW = math.log(2 / (1 + 1 / VOCAB)), math.log(VOCAB)


def run(config: repeats.Config = CONFIG, data: list[Tensor] = DATA) -> Result:
    return repeats.run(Copier(), config, 0, data=data)


def value(found: Result, metric: str, where: str) -> float:
    return found.row(metric, where).value


def brute(tokens: list[int], n: int, start: int, stop: int) -> dict[int, tuple[int, int]]:
    """Position -> (distance, times) of every repeated n-gram within tokens start .. stop, by its last token."""
    found: dict[int, tuple[int, int]] = {}
    for end in range(start + n, stop + 1):
        gram = tokens[end - n + 1 : end + 1]
        before = [e for e in range(start + n - 1, end) if tokens[e - n + 1 : e + 1] == gram]
        if before and end > start:
            found[end] = (end - before[-1], len(before))
    return found


@pytest.mark.parametrize("call_tokens", [1, 7, 100_000])
def test_a_text_made_by_hand(call_tokens: int) -> None:
    found = run(replace(CONFIG, call_tokens=call_tokens))
    where = "window=document;tokens="
    assert value(found, "share", f"{where}repeats") == 6 / 17
    assert value(found, "share", f"{where}others") == 11 / 17
    # what followed last time follows again, but at 11: 2 was followed by 4
    nats = 5 * HIT + math.log(2 * VOCAB)
    assert value(found, "nll", f"{where}repeats") == pytest.approx(nats / 6, rel=1e-6)
    assert value(found, "perplexity", f"{where}repeats") == pytest.approx(math.exp(nats / 6), rel=1e-6)
    assert value(found, "share", f"{where}repeats;distance=2") == 4 / 17  # 3 back in FIRST, 2 in SECOND
    assert value(found, "nll", f"{where}repeats;distance=2") == pytest.approx(HIT, rel=1e-6)
    assert value(found, "share", f"{where}repeats;times=1") == 4 / 17
    with pytest.raises(KeyError):
        found.row("nll", f"{where}repeats;distance=4")  # FIRST alone has one


def test_one_document_shows_all_octaves() -> None:
    found = run(data=DATA[:1])
    where = "window=document;tokens=repeats;"
    assert {d: value(found, "share", f"{where}distance={d}") for d in (2, 4, 8)} == {2: 1 / 12, 4: 1 / 12, 8: 1 / 12}
    assert value(found, "nll", f"{where}times=2") == pytest.approx(HIT, rel=1e-6)
    assert math.isnan(found.row("nll", f"{where}times=2").low)


def test_windows_forget() -> None:
    """A window of 6 tokens: 0..6 and 6..12 of FIRST, 0..5 of SECOND."""
    found = run(replace(CONFIG, window=6))
    assert value(found, "share", "window=6;tokens=repeats") == 4 / 17


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("window", [None, 4, 9])
def test_random_texts(n: int, window: int | None) -> None:
    generator = torch.Generator().manual_seed(n)
    data = [torch.randint(0, 3, (size,), generator=generator) for size in (40, 3, 33)]
    expected = {}
    for text in data:
        size = window or len(text)
        for start in range(0, len(text) - 1, size):
            for end, (distance, times) in brute(text.tolist(), n, start, min(start + size, len(text) - 1)).items():
                for key, number in (("distance", distance), ("times", times)):
                    name = f"{key}={1 << (number.bit_length() - 1)}"
                    expected.setdefault(name, []).append((id(text), end))
    found = run(replace(CONFIG, n=n, window=window), data)
    total = sum(len(text) - 1 for text in data)
    where = f"window={window or 'document'};tokens=repeats"
    for name, hits in expected.items():
        if len({text for text, _ in hits}) > 1:
            assert value(found, "share", f"{where};{name}") == pytest.approx(len(hits) / total)
    shown = {str(r.condition).rpartition(";")[2] for r in found.rows if "=repeats;" in str(r.condition)}
    assert shown == {name for name, hits in expected.items() if len({text for text, _ in hits}) > 1}
    hits = sum(len(h) for name, h in expected.items() if "times" in name)
    assert value(found, "share", where) == pytest.approx(hits / total)


def test_all_tokens_are_one_or_the_other() -> None:
    """Weighted by their shares the losses are the loss."""
    model = zoo.build({"d_model": 16, "vocab_size": VOCAB, "blocks": {"M": {"type": "mamba1"}}, "pattern": "M"})
    found = repeats.run(model, CONFIG, 0, data=DATA)
    parts = [
        value(found, "nll", f"window=document;tokens={t}") * value(found, "share", f"window=document;tokens={t}")
        for t in ("repeats", "others")
    ]
    with torch.no_grad():
        whole = sum(float(model.loss(text[None])[0]) * (len(text) - 1) for text in DATA) / 17
    assert sum(parts) == pytest.approx(whole, rel=1e-5)


def test_common_n_grams_are_no_repeats() -> None:
    """9 8 is 3 of 4 bigrams elsewhere; 8 9 is none of them."""
    third = torch.tensor([9, 8, 9, 8, 9, 8])
    grams = n_grams([np.array(SECOND), third.numpy(), np.array(FIRST)], 2)
    rare = not_common(grams, 0.2)
    assert rare[0].tolist() == [True] * 5, "3 of 17 elsewhere"
    assert not_common(grams, 0.15)[0].tolist() == [False, True, False, True, False]
    assert rare[2].all()
    data = [DATA[1], third, DATA[0]]
    where = "window=document;tokens=repeats"
    assert value(run(replace(CONFIG, common=0.2), data), "share", where) == 9 / 22
    assert value(run(replace(CONFIG, common=0.15), data), "share", where) == 5 / 22
    assert value(run(replace(CONFIG, common=0.0), data), "share", where) == 3 / 22


def test_n_grams_are_those_of_the_documents_alone() -> None:
    grams = n_grams([np.array([5, 6]), np.array([7, 5, 6, 7]), np.array([3])], 2)
    assert [len(g) for g in grams] == [1, 3, 0]
    assert grams[0][0] == grams[1][1]
    assert len({*grams[1].tolist()}) == 3
    assert repeated(np.array([4, 2, 4, 4, 2])).tolist() == [[0, 0, 2, 1, 3], [0, 0, 1, 2, 1]]
    assert repeated(np.array([], dtype=np.int64)).shape == (2, 0)


def test_six_bytes_and_two_tokens() -> None:
    text = torch.tensor([*b"abcdef abcdef abcdef"])
    of_bytes = zoo.build({"d_model": 8, "vocab_size": 256, "blocks": {"F": {"type": "mlp"}}, "pattern": "F"})
    of_tokens = zoo.build({"d_model": 8, "vocab_size": 300, "blocks": {"F": {"type": "mlp"}}, "pattern": "F"})
    shares = [value(repeats.run(m, repeats.Config(), 0, data=[text]), "share", "window=1024;tokens=repeats") for m in (of_bytes, of_tokens)]
    assert shares == [8 / 19, 12 / 19]


@pytest.mark.parametrize("values", [{"n": 0}, {"window": 0}, {"common": 1.0}, {"documents": 0}, {"call_tokens": 0}])
def test_impossible_sizes_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        parse(repeats.Config, values)
    assert repeats.Config(common=0.1).reads.documents == 2
    with pytest.raises(ConfigError, match="common in others"):
        run(replace(CONFIG, common=0.1), DATA[:1])
