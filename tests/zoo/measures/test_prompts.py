"""What is streamed: joined documents, repeated blocks, newlines; and what collapse and state say of them."""

import math

import pytest
import torch
from torch import Tensor

import zoo
from blocks.errors import ConfigError
from zoo.measures import collapse, state
from zoo.measures.shared.base import Reads


def documents(*lengths: int) -> list[Tensor]:
    """Document i holds 100 i, 100 i + 1, ..."""
    return [torch.arange(100 * i, 100 * i + n) for i, n in enumerate(lengths)]


def config(prompt: str, length: int = 8, **more: int) -> state.Config:
    return state.Config(prompt=prompt, length=length, every=4, documents=2, horizons=(), **more)


def model(vocab: int = 256) -> zoo.Model:
    return zoo.build({"d_model": 8, "vocab_size": vocab, "blocks": {"M": {"type": "mamba1", "d_state": 4}}, "pattern": "M"}).double()


def test_every_next_document_goes_to_the_shortest_text() -> None:
    found = config("joined").texts(documents(5, 3, 2, 4, 9, 9))
    assert found.tolist() == [[0, 1, 2, 3, 4, 300, 301, 302], [100, 101, 102, 200, 201, 400, 401, 402]]
    assert config("joined").reads == Reads(2, 1, 16)


def test_too_little_to_join_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"documents = 2: 15 tokens of text do not make so many texts of 8: the shortest has 7"):
        config("joined").texts(documents(8, 7))


def test_the_middle_of_a_document_is_repeated() -> None:
    found = config("repeated", block=3).texts(documents(7, 4))
    assert found.tolist() == [[2, 3, 4, 2, 3, 4, 2, 3], [100, 101, 102, 100, 101, 102, 100, 101]]
    assert config("repeated", block=3).reads == Reads(2, 3)


def test_newlines_need_no_documents_and_fit_the_vocabulary() -> None:
    assert config("newlines").texts(None).tolist() == [[10] * 8]
    assert config("newlines").reads is None
    config("newlines").check(model().config)
    with pytest.raises(ConfigError, match=r"newline = 256: the model has 256 token ids"):
        config("newlines", newline=256).check(model().config)
    with pytest.raises(ConfigError, match="choices: documents, joined, repeated, newlines"):
        config("spaces")


def test_newlines_are_one_text_without_sampling_error() -> None:
    found = state.run(model(), config("newlines", 40, train_length=8), 0)
    assert {r.condition["prompt"] for r in found.rows} == {"newlines"}
    assert all(r.low == r.value == r.high and r.n == 1 for r in found.rows)
    _, after = model()(torch.full((1, 40), 10))
    norm = float(after.layers[0][0].ssm.detach().norm())
    assert found.row("norm", "prompt=newlines;layer=0;block=M;tensor=ssm;token=40").value == pytest.approx(norm)


def test_collapse_on_newlines_is_read_from_one_text() -> None:
    sizes = {"prompt": "newlines", "train_length": 16, "times": 4}
    found = collapse.run(model(), collapse.Config(**sizes), 0)
    assert all(r.low == r.value == r.high and r.n == 1 for r in found.rows)
    with torch.no_grad():
        nll = torch.nn.functional.cross_entropy(model()(torch.full((1, 64), 10))[0][0, :-1], torch.full((63,), 10), reduction="none")
    assert found.row("nll_stream", "prompt=newlines;position=32").value == pytest.approx(float(nll[31:44].mean()))
    where = "prompt=newlines;train_length=16;length=64;margin=0.05"
    assert found.row("onset", where).value == math.inf


def test_texts_longer_than_any_document() -> None:
    data = [torch.randint(0, 256, (n,), generator=torch.Generator().manual_seed(n)) for n in range(40, 60)]
    sizes = {"train_length": 8, "times": 32, "documents": 3}
    joined = collapse.run(model(), collapse.Config(prompt="joined", **sizes), 0, data=data)
    by_hand = collapse.Config(prompt="joined", **sizes).texts(data)
    expected = collapse.run(model(), collapse.Config(**sizes), 0, data=list(by_hand))
    assert [(r.metric, *r[2:]) for r in joined.rows] == [(r.metric, *r[2:]) for r in expected.rows]
    assert [str(r.condition) for r in joined.rows] == [f"prompt=joined;{r.condition}" for r in expected.rows]
