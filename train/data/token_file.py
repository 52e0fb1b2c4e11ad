"""Ready-made token ids, memory-mapped: a .bin of uint8, uint16 or uint32, a .npy, or a folder with train.*, val.*, test.* of these.

Documents begin at `separator` (GPT-2: 50256), or there is only one. A single file is split by document from its end: the last
5 % of its tokens for test, the 5 % before for validation. One pass over the file, before anything is trained, checks
every id and takes the fingerprint (about a second a gigabyte or two).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from blocks.errors import ConfigError, one_of, require
from train.data.corpus import SHARE, SPLITS, Corpus, ReadingReport, Spans, Split, assemble, cut
from train.data.split_names import split_of

DTYPES = ("uint8", "uint16", "uint32")
PIECE = 1 << 24  # tokens read at a time
SEEN = 1 << 20  # ids whose halves are looked at
HIGHEST, KINDS = 3, 32  # an upper half is this at most (ids below 2^18), of lower halves there are more than so many different ones


def token_corpus(path: str, vocab_size: int, dtype: str = "uint16", separator: int | None = None) -> Corpus:
    """The corpus of a token file or folder. dtype: of a .bin; a .npy knows its own. Raises ConfigError before any training."""
    one_of("dtype", dtype, DTYPES)
    require(vocab_size >= 1, "vocab_size", vocab_size, "must be positive")
    require(separator is None or 0 <= separator < vocab_size, "separator", separator, f"must be an id below vocab_size {vocab_size}")
    digest, parts = hashlib.sha256(), {}
    files = _files(path)
    for side, file in files.items():
        tokens = _open(path, file, dtype)
        digest.update(f"{side} {tokens.dtype} {len(tokens)}".encode())
        parts[side] = _spans(tokens, _scan(path, file, tokens, vocab_size, separator, digest))
    label, print_, report = Path(path).resolve().name, digest.hexdigest(), ReadingReport(tuple(file.name for file in files.values()))
    if "" in parts:
        corpus = _split_from_the_end(label, print_, vocab_size, parts[""], separator)
        return replace(corpus, report=report)
    made = [_whole(parts[side], separator) if side in parts else _whole(_spans(np.empty(0, np.uint8), None), separator) for side in SPLITS]
    train, validation, test = made
    return Corpus(label, print_, vocab_size, train, validation, test, report)


def _files(path: str) -> dict[str, Path]:
    """Split -> file; the split is "" if there is one file for all."""
    root = Path(path)
    if root.is_file():
        require(root.suffix in (".bin", ".npy"), "path", path, "is not a token file", "kinds: .bin, .npy; text: kind: text")
        return {"": root}
    if not root.is_dir():
        raise ConfigError("path", path, "there is no such file or folder")
    splits = {file: split_of(file.name) for file in sorted(root.iterdir()) if file.suffix in (".bin", ".npy")}
    files: dict[str, Path] = {}
    for file, side in splits.items():
        if side is not None:
            require(side not in files, "path", path, f"has two files for {side}: {files.get(side, file).name} and {file.name}")
            files[side] = file
    require("train" in files, "path", path, "holds no train.bin or train.npy", "or name one file")
    silent = [file.name for file, side in splits.items() if side is None]
    rule = f"{', '.join(silent[:3])} name no split, as train does"
    require(not silent, "path", path, rule, "name them train, validation or test, or move them away")
    return files


def _open(path: str, file: Path, dtype: str) -> np.ndarray:
    size = file.stat().st_size
    if file.suffix == ".bin":
        width = np.dtype(dtype).itemsize
        require(size > 0, "path", path, f"{file.name} is empty")
        require(size % width == 0, "path", path, f"{file.name} has {size} bytes, not a multiple of {dtype}'s {width}", "another dtype?")
        mapped = np.memmap(file, dtype=np.dtype(dtype).newbyteorder("<"), mode="r")
        _check_width(path, file, mapped)
        return mapped
    try:
        tokens = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ConfigError("path", path, f"{file.name} is not an array of numbers: {error}") from None
    require(tokens.ndim == 1, "path", path, f"{file.name} has shape {tokens.shape}, it must be one row of ids")
    require(tokens.dtype.kind in "ui", "path", path, f"{file.name} holds {tokens.dtype}, ids are whole numbers")
    require(len(tokens) > 0, "path", path, f"{file.name} is empty")
    return tokens


def _check_width(path: str, file: Path, tokens: np.ndarray) -> None:
    """Raise ConfigError where ids look twice as wide as they are read: every second number, the upper half of each, is nearly always 0."""
    lower, upper = tokens[: 2 * SEEN : 2], tokens[1 : 2 * SEEN : 2]
    if tokens.dtype.itemsize < 4 and len(upper) and upper.max() <= HIGHEST and len(np.unique(lower)) > KINDS:
        wider = f"uint{16 * tokens.dtype.itemsize}"
        rule = f"{file.name} read as {tokens.dtype} has almost only 0 in every second place: its ids look like {wider}"
        raise ConfigError("dtype", str(tokens.dtype), rule, f"dtype: {wider}")


def _scan(path: str, file: Path, tokens: np.ndarray, vocab_size: int, separator: int | None, digest: hashlib._Hash) -> np.ndarray | None:
    """Check every id and feed the digest; where the separators stand."""
    separators = []
    for start in range(0, len(tokens), PIECE):
        piece = np.ascontiguousarray(tokens[start : start + PIECE])
        digest.update(piece.data)
        wrong = (piece >= vocab_size) | (piece < 0)
        if wrong.any():
            at = int(wrong.argmax())
            rule = f"{file.name} holds id {piece[at]} at token {start + at}, beyond vocab_size {vocab_size}"
            raise ConfigError("path", path, rule, "a larger vocab_size, or another dtype")
        if separator is not None:
            separators.append(start + np.flatnonzero(piece == separator))
    return None if separator is None else np.concatenate(separators)


def _spans(tokens: np.ndarray, separators: np.ndarray | None) -> Spans:
    """A document from each separator to the next; a lone separator is none."""
    edges = np.array([0, len(tokens)]) if separators is None else np.unique(np.concatenate([[0], separators, [len(tokens)]]))
    starts, ends = edges[:-1].astype(np.int64), edges[1:].astype(np.int64)
    real = ends - starts > (0 if separators is None else 1)
    return Spans(tokens, starts[real], ends[real], None, None)


def _split_from_the_end(label: str, print_: str, vocab_size: int, spans: Spans, separator: int | None) -> Corpus:
    if len(spans.starts) < len(SPLITS):
        return assemble(label, print_, vocab_size, *cut(spans), separator)
    total = int((spans.ends - spans.starts).sum())
    after = total - np.cumsum(spans.ends - spans.starts)  # tokens behind each document
    sides = np.where(after < SHARE * total, 2, np.where(after < 2 * SHARE * total, 1, 0))
    sides[0] = 0
    if not (sides == 1).any():  # few documents, and large ones
        sides[max(1, np.flatnonzero(sides < 2)[-1])] = 1
    return assemble(label, print_, vocab_size, spans, sides, separator)


def _whole(spans: Spans, separator: int | None) -> Split:
    return Split(spans.tokens, spans.starts, spans.ends, None, separator, None)
