"""Ready-made token ids, memory-mapped: a .bin of uint8, uint16 or uint32, a .npy, or a folder with train.*, val.*, test.* of these.

Documents begin at `separator` (GPT-2: 50256), or there is only one. A single file is split by document from its end: the last
5 % of its tokens for test, the 5 % before for validation. One pass over the file, before anything is trained, checks
every id and takes the fingerprint (about a second a gigabyte or two).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from blocks.errors import ConfigError, one_of, require
from train.data.corpus import ALIASES, SHARE, SPLITS, Corpus, Spans, Split, assemble, cut

DTYPES = ("uint8", "uint16", "uint32")
PIECE = 1 << 24  # tokens read at a time


def token_corpus(path: str, vocab_size: int, dtype: str = "uint16", separator: int | None = None) -> Corpus:
    """The corpus of a token file or folder. dtype: of a .bin; a .npy knows its own. Raises ConfigError before any training."""
    one_of("dtype", dtype, DTYPES)
    require(vocab_size >= 1, "vocab_size", vocab_size, "must be positive")
    require(separator is None or 0 <= separator < vocab_size, "separator", separator, f"must be an id below vocab_size {vocab_size}")
    digest, parts = hashlib.sha256(), {}
    for side, file in _files(path).items():
        tokens = _open(path, file, dtype)
        digest.update(f"{side} {tokens.dtype} {len(tokens)}".encode())
        parts[side] = _spans(tokens, _scan(path, file, tokens, vocab_size, separator, digest))
    label, print_ = Path(path).resolve().name, digest.hexdigest()
    if "" in parts:
        return _split_from_the_end(label, print_, vocab_size, parts[""], separator)
    made = [_whole(parts[side], separator) if side in parts else _whole(_spans(np.empty(0, np.uint8), None), separator) for side in SPLITS]
    return Corpus(label, print_, vocab_size, *made)


def _files(path: str) -> dict[str, Path]:
    """Split -> file; the split is "" if there is one file for all."""
    root = Path(path)
    if root.is_file():
        require(root.suffix in (".bin", ".npy"), "path", path, "is not a token file", "kinds: .bin, .npy; text: kind: text")
        return {"": root}
    if not root.is_dir():
        raise ConfigError("path", path, "there is no such file or folder")
    files: dict[str, Path] = {}
    for file in sorted(f for f in root.iterdir() if f.suffix in (".bin", ".npy") and f.stem in ALIASES):
        side = ALIASES[file.stem]
        require(side not in files, "path", path, f"has two files for {side}: {files.get(side, file).name} and {file.name}")
        files[side] = file
    require("train" in files, "path", path, "holds no train.bin or train.npy", "or name one file")
    return files


def _open(path: str, file: Path, dtype: str) -> np.ndarray:
    size = file.stat().st_size
    if file.suffix == ".bin":
        width = np.dtype(dtype).itemsize
        require(size > 0, "path", path, f"{file.name} is empty")
        require(size % width == 0, "path", path, f"{file.name} has {size} bytes, not a multiple of {dtype}'s {width}", "another dtype?")
        return np.memmap(file, dtype=np.dtype(dtype).newbyteorder("<"), mode="r")
    try:
        tokens = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ConfigError("path", path, f"{file.name} is not an array of numbers: {error}") from None
    require(tokens.ndim == 1, "path", path, f"{file.name} has shape {tokens.shape}, it must be one row of ids")
    require(tokens.dtype.kind in "ui", "path", path, f"{file.name} holds {tokens.dtype}, ids are whole numbers")
    require(len(tokens) > 0, "path", path, f"{file.name} is empty")
    return tokens


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
