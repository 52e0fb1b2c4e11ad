"""Files that say which split they belong to are read so, or refused; documents that come or go move no others; and what is told of it."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from blocks.errors import ConfigError
from tests.train.data.test_corpora import parts, texts, write
from train.data import open_source, reading_lines
from train.data.split_names import declared_splits, split_of
from train.data.text_folder import folder
from train.data.token_file import token_corpus


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.txt", "train"),
        ("Training/a.txt", "train"),
        ("wiki.train.txt", "train"),
        ("train-00001-of-00010.jsonl", "train"),
        ("VAL.txt", "validation"),
        ("eval.jsonl", "validation"),
        ("deep/Dev/x.md", "validation"),
        ("data_valid.txt", "validation"),
        ("validation.a.txt", "validation"),
        ("test_3.txt", "test"),
        ("my-TEST.txt", "test"),
        ("test/train.py", "test"),
        ("contest.txt", None),
        ("test_utils.txt", None),
        ("training_log.txt", None),
        ("train.py", None),
        ("src/test/a.py", None),
        ("README.md", None),
    ],
)
def test_a_name_declares_a_split(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_a_folder_of_named_files_is_read_as_it_says(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"train.txt": "a", "Val.txt": "b", "test.txt": "c", "README.md": "d"}
    corpus = folder(write(tmp_path, files))
    assert [texts(s) for s in parts(corpus)] == [[b"a"], [b"b"], [b"c"]]
    assert corpus.report.read == ("Val.txt", "test.txt", "train.txt")
    assert corpus.report.skipped == (("README.md", "names no split, as the others do"),)
    lines = "\n".join(json.dumps({"text": f"document {i}"}) for i in range(20))
    corpus = folder(write(tmp_path / "lines", {"train.jsonl": lines, "eval.jsonl": lines}))
    assert [s.n_documents for s in parts(corpus)] == [20, 20, 0]


def test_what_a_folder_leaves_open_is_refused(tmp_path: Path) -> None:
    for names, words in (
        (["train.txt", "val.txt", "notes.txt"], "notes.txt no split"),
        (["a.txt", "test.txt"], "a.txt no split"),
        (["val.txt", "test.txt"], "no file is named train"),
        (["train.txt", "val/train.txt"], "its name says validation and train"),
    ):
        with pytest.raises(ConfigError, match=words):
            declared_splits(names)
    assert declared_splits(["train.txt", "more.txt"]) is None
    assert declared_splits(["train.py", "test.py", "model.py"]) is None
    for name in ("train.bin", "VAL.bin", "other.bin"):
        (tmp_path / name).write_bytes(np.arange(9, dtype="<u2").tobytes())
    with pytest.raises(ConfigError, match=r"other\.bin name no split"):
        token_corpus(str(tmp_path), 10)
    (tmp_path / "other.bin").unlink()
    assert [s.n_tokens for s in parts(token_corpus(str(tmp_path), 10))] == [9, 9, 0]


def test_documents_that_come_or_go_move_no_others(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {f"{i:03d}.txt": f"text number {i} " * 20 for i in range(400)}
    before = folder(write(tmp_path, files))
    split = {name: i for i, s in enumerate(parts(before)) for name in s.names or ()}
    assert all(0.02 < s.n_tokens / sum(p.n_tokens for p in parts(before)) < 0.1 for s in parts(before)[1:])
    for gone in ("000.txt", "200.txt", (before.test.names or ())[0]):
        (tmp_path / gone).unlink()
    write(tmp_path, {"zzz.txt": "another text " * 30})
    after = {name: i for i, s in enumerate(parts(folder(str(tmp_path)))) for name in s.names or ()}
    assert len(after) == 398
    assert all(after[name] == split[name] for name in after if name in split)


def test_the_plan_is_told_what_was_read(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {f"train/{i}.txt": "short text" for i in range(400)}
    files |= {"train/long.txt": "x" * 399, "val/a.txt": "y" * 200, "test/a.txt": "z" * 200, "train/empty.txt": "", "train/image.png": b"x"}
    path = write(tmp_path, files)
    os.symlink(tmp_path / "val", tmp_path / "link")
    lines = reading_lines(open_source({"kind": "text", "path": path, "length": 100}))
    assert lines == [
        "403 files read",
        "1 skipped, is a link to a folder: link",
        "1 skipped, is empty: train/empty.txt",
        "1 skipped, ends in .png, not in .txt .md .py .jsonl: train/image.png",
        "train 4,800 tokens in 401 documents; validation 201 tokens in 1 documents; test 201 tokens in 1 documents",
        "windows of 100 tokens reach 8.3% of the training text",
        "mode window never asks for the end of a document, so zoo generate won't stop by itself (mode: packed learns it)",
    ]
    assert reading_lines(open_source({"kind": "text", "path": path, "length": 100, "mode": "packed"})) == lines[:5]
    assert reading_lines(open_source({"kind": "mqar"})) == []
