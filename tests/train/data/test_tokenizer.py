"""A tokenizer.json as data read it: nothing is cut, padded or added, ids may leave gaps, and bits per byte need the whole text back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from blocks.errors import ConfigError
from tests.train.data.test_text_codec import trained
from train.data import SPLITS, Corpus, load_corpus, parse_data
from train.data.text_codec import coder_of
from train.data.tokenizer import load_tokenizer, vocab_size

TEXT = "one two three two one " * 20


def words(**more: int) -> Any:
    """A tokenizer of three words and the space, without loss for texts of these."""
    coder = Tokenizer(models.WordLevel({"[UNK]": 0, "one": 1, "two": 2, "three": 3, " ": 4, "<end>": 5, **more}, unk_token="[UNK]"))
    coder.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(" "), "isolated")
    coder.decoder = decoders.Fuse()
    coder.add_special_tokens(["<end>"])
    return coder


def read(tmp_path: Path, coder: Any, text: str = TEXT, **data: Any) -> Corpus:
    for split in ("train", "val", "test"):
        (tmp_path / "text").mkdir(exist_ok=True)
        (tmp_path / "text" / f"{split}.txt").write_text(text)
    coder.save(str(tmp_path / "tokenizer.json"))
    values = {"kind": "text", "path": str(tmp_path / "text"), "length": 2, "tokenizer": str(tmp_path / "tokenizer.json"), **data}
    return load_corpus(parse_data(values))


def document(corpus: Corpus) -> list[int]:
    return [int(i) for i in corpus.test.document(0)]


def test_a_saved_truncation_or_padding_is_off(tmp_path: Path) -> None:
    whole = read(tmp_path, words())
    assert whole.test.n_tokens == 200
    assert whole.test.bytes_per_token == len(TEXT) / 200
    for name, change in (("cut", lambda c: c.enable_truncation(32)), ("padded", lambda c: c.enable_padding(length=500))):
        coder = words()
        change(coder)
        (tmp_path / name).mkdir()
        corpus = read(tmp_path / name, coder)
        assert document(corpus) == document(whole)
        assert corpus.test.bytes_per_token == whole.test.bytes_per_token
        folder = trained(tmp_path / name / "run", tokenizer=str(tmp_path / name / "tokenizer.json"))
        assert coder_of(folder, 8).ids(TEXT) == document(whole)
        (folder / "tokenizer.json").write_bytes((tmp_path / name / "tokenizer.json").read_bytes())
        assert coder_of(folder, 8).ids(TEXT) == document(whole)


def test_a_post_processor_adds_nothing_to_documents(tmp_path: Path) -> None:
    coder = words()
    coder.post_processor = processors.TemplateProcessing(single="<end> $A $A <end>", special_tokens=[("<end>", 5)])
    assert document(read(tmp_path, coder)) == document(read(tmp_path, words()))


def test_the_text_of_a_special_token_is_text(tmp_path: Path) -> None:
    """Or an error, where the tokenizer's own words hold it."""
    with pytest.raises(ConfigError, match=r"separator = '<end>': the text of document 0 is read as this token: 'one <end> two '"):
        read(tmp_path, words(), "one <end> two ", separator="<end>")
    assert document(read(tmp_path, words(), "one two ", separator="<end>")) == [5, 1, 4, 2, 4]
    coder = Tokenizer(models.BPE({chr(i): i for i in range(32, 127)} | {"<end>": 127}, []))
    coder.decoder = decoders.Fuse()
    coder.add_special_tokens(["<end>"])
    corpus = read(tmp_path, coder, "a <end> b", separator="<end>")
    assert document(corpus) == [127, *b"a <end> b"]
    assert corpus.test.bytes_per_token == 1


@pytest.mark.parametrize("text", ["one four two ", "one\ttwo "])
def test_bits_per_byte_need_the_whole_text_back(tmp_path: Path, text: str) -> None:
    corpus = read(tmp_path, words(), TEXT + text)
    assert [corpus.split(name).bytes_per_token for name in SPLITS] == [None] * 3
    (note,) = corpus.report.notes
    assert "no bits per byte" in note
    assert "comes back as" in note
    assert read(tmp_path, words()).report.notes == ()


def test_ids_may_leave_gaps(tmp_path: Path) -> None:
    """The vocabulary is the largest id + 1, and so wide are the ids that are kept."""
    coder = words(rare=70_000)
    corpus = read(tmp_path, coder, "one rare two ")
    assert corpus.vocab_size == vocab_size(load_tokenizer(str(tmp_path / "tokenizer.json"))) == 70_001
    assert corpus.test.tokens.dtype == np.uint32
    assert document(corpus) == [1, 4, 70_000, 4, 2, 4]
