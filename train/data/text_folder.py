"""A user's own text: a file, or a folder of .txt .md .py (a document each) and .jsonl (a document a line, under "text").

Files are read in the order of their names; hidden ones, other suffixes and links to folders are left out (`zoo plan` lists them). The
text must be strict UTF-8 and is read as bytes. Names that say so decide the split (train/..., wiki.val.txt, dev.jsonl, see split_names);
otherwise it is drawn from a hash of each document, and one or two documents are cut at 90 % and 95 %.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from blocks.errors import ConfigError
from train.data.corpus import Corpus, Document, ReadingReport, byte_corpus, fingerprint
from train.data.split_names import declared_splits

SUFFIXES = (".txt", ".md", ".py", ".jsonl")
FORMER = {"train", "validation", "valid", "val", "test"}  # first words of names that version 2026.11 read as splits


def folder(path: str) -> Corpus:
    """The text under `path`. Raises ConfigError (place `path`) on nothing to read, text that can't be read, or names that declare a split
    for some files only."""
    root = Path(path)
    files, skipped = _files(path)
    names = {file: file.name if file == root else file.relative_to(root).as_posix() for file in files}
    splits = None if root.is_file() else declared_splits(list(names.values()))
    if splits is not None:
        skipped += [(name, "names no split, as the others do") for name in names.values() if name not in splits]
        files = [file for file in files if names[file] in splits]
    read = {names[file]: _documents(path, names[file], file) for file in files}
    skipped += [(name, "is empty") for name, documents in read.items() if not any(document.data for document in documents)]
    documents = [document for of_file in read.values() for document in of_file]
    if not any(document.data for document in documents):
        raise ConfigError("path", path, "holds no text: all its files are empty")
    side = None if splits is None else {d.name: splits[name] for name, of_file in read.items() for d in of_file}
    print_ = _print(documents, side)
    corpus = byte_corpus(root.resolve().name, print_, documents, None if side is None else side.__getitem__)
    left_out = {name for name, _ in skipped}
    return replace(corpus, report=ReadingReport(tuple(name for name in read if name not in left_out), tuple(sorted(skipped))))


def _print(documents: list[Document], side: dict[str, str] | None) -> str:
    """The fingerprint of the documents, with their splits where version 2026.11 would not have read them from the names."""
    print_ = fingerprint(documents)
    if side is None or {first_word(name) for name in side} <= FORMER:
        return print_
    return hashlib.sha256(f"{print_} {sorted(side.items())}".encode()).hexdigest()


def first_word(name: str) -> str:
    """`train` of train/a.txt and of train.jsonl:3."""
    return name.split("/")[0].split(".")[0]


def _files(path: str) -> tuple[list[Path], list[tuple[str, str]]]:
    """The files to read, in order; and (name, why) of those that are left out."""
    root = Path(path)
    if root.is_file():
        if root.suffix in SUFFIXES:
            return [root], []
        raise ConfigError("path", path, "is not text that can be read", f"kinds: {', '.join(SUFFIXES)}; token files: kind: tokens")
    if not root.is_dir():
        raise ConfigError("path", path, "there is no such file or folder")
    files, skipped = [], []
    for file in sorted(root.rglob("*"), key=lambda file: file.relative_to(root).as_posix()):
        why = _why_not(file, root)
        if why is not None:
            skipped.append((file.relative_to(root).as_posix(), why))
        elif file.is_file():
            files.append(file)
    if not files:
        raise ConfigError("path", path, f"holds no {' '.join(SUFFIXES)} file")
    return files, skipped


def _why_not(file: Path, root: Path) -> str | None:
    """Why something in a folder is not read; None: it is, or it is a folder."""
    if any(part.startswith(".") for part in file.relative_to(root).parts):
        return "is hidden"
    if file.is_symlink() and not file.is_file():
        return "is a link to a folder" if file.is_dir() else "is a link to nothing"
    if file.is_dir():
        return None
    if not file.is_file():
        return "is no regular file"
    return None if file.suffix in SUFFIXES else f"ends in {file.suffix or 'no suffix'}, not in {' '.join(SUFFIXES)}"


def _documents(path: str, name: str, file: Path) -> list[Document]:
    data = file.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError("path", path, f"{name} is not UTF-8 at byte {error.start}", "save it as UTF-8, or leave it out") from None
    documents = _lines(path, name, text) if file.suffix == ".jsonl" else [Document(name, data)]
    for document in documents:
        if b"\0" in document.data:
            at = document.data.index(b"\0")
            raise ConfigError("path", path, f"{document.name} holds byte 0, which separates documents, at byte {at}", "is it text?")
    return documents


def _lines(path: str, name: str, text: str) -> list[Document]:
    documents = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError("path", path, f"{name} line {number} is not JSON: {error}") from None
        if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
            raise ConfigError("path", path, f'{name} line {number} has no "text"', 'a line is {"text": "..."}')
        try:
            documents.append(Document(f"{name}:{number}", entry["text"].encode("utf-8")))
        except UnicodeEncodeError:
            raise ConfigError("path", path, f'{name} line {number}: "text" has half a surrogate pair') from None
    return documents
