"""A user's own text: a file, or a folder of .txt .md .py (a document each) and .jsonl (a document a line, under "text").

Files are read in the order of their names, hidden ones are left out. The text must be strict UTF-8 and is read as bytes. Names that
say so decide the split (train/..., val.txt, test.jsonl); otherwise it is drawn from the documents' contents, and one or two
documents are cut at 90 % and 95 %.
"""

from __future__ import annotations

import json
from pathlib import Path

from blocks.errors import ConfigError
from train.data.corpus import Corpus, Document, byte_corpus, declared, fingerprint

SUFFIXES = (".txt", ".md", ".py", ".jsonl")


def folder(path: str) -> Corpus:
    """The text under `path`. Raises ConfigError (place `path`) on nothing to read, or text that can't be read."""
    documents = [document for file in text_files(path) for document in _documents(path, file)]
    if not any(document.data for document in documents):
        raise ConfigError("path", path, "holds no text: all its files are empty")
    return byte_corpus(Path(path).resolve().name, fingerprint(documents), documents, declared([d.name for d in documents]))


def text_files(path: str) -> list[Path]:
    """The files to read, in order."""
    root = Path(path)
    if root.is_file():
        if root.suffix in SUFFIXES:
            return [root]
        raise ConfigError("path", path, "is not text that can be read", f"kinds: {', '.join(SUFFIXES)}; token files: kind: tokens")
    if not root.is_dir():
        raise ConfigError("path", path, "there is no such file or folder")
    found = [file for file in root.rglob("*") if file.suffix in SUFFIXES and file.is_file()]
    seen = [file for file in found if not any(part.startswith(".") for part in file.relative_to(root).parts)]
    if not seen:
        raise ConfigError("path", path, f"holds no {' '.join(SUFFIXES)} file")
    return sorted(seen, key=lambda file: file.relative_to(root).as_posix())


def _documents(path: str, file: Path) -> list[Document]:
    name = file.name if file == Path(path) else file.relative_to(path).as_posix()
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
