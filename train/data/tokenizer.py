"""Tokenizers: a tokenizer.json or the id of a model, by the package `tokenizers`; and byte corpora in a tokenizer's ids."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from blocks.errors import ConfigError
from train.data.corpus import SPLITS, Corpus, Split

AT_ONCE = 256  # documents encoded by one call
_LATEST: dict[str, Corpus] = {}  # fingerprint -> corpus: what was encoded last, since a command opens its data several times


def import_package(package: str, place: str, value: Any) -> ModuleType:
    """An optional package. Raises ConfigError, naming what to install."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ConfigError(place, value, f"needs the package {package}", "run: pip install datasets tokenizers") from None


def load_tokenizer(name: str) -> Any:
    """A tokenizers.Tokenizer from a tokenizer.json or the id of a model. Raises ConfigError (place `tokenizer`)."""
    tokenizers = import_package("tokenizers", "tokenizer", name)
    try:
        return tokenizers.Tokenizer.from_file(name) if name.endswith(".json") else tokenizers.Tokenizer.from_pretrained(name)
    except Exception as error:  # the library raises bare Exception
        raise ConfigError("tokenizer", name, f"can't be loaded: {error}", "bytes, a tokenizer.json, or the id of a model") from error


def separator_ids(coder: Any, separator: str | None) -> list[int]:
    """The one id that begins a document, none where separator is None. Raises ConfigError."""
    if separator is None:
        return []
    token = coder.token_to_id(separator)
    if token is None:
        raise ConfigError("separator", separator, "the tokenizer has no such token", "<|endoftext|> or </s> in many")
    return [token]


def encoded(coder: Any, texts: Sequence[str], head: Sequence[int]) -> list[np.ndarray]:
    """The ids of each text, `head` first; uint16 where the vocabulary fits."""
    kind = np.uint16 if coder.get_vocab_size() <= 1 << 16 else np.uint32
    pieces = []
    for first in range(0, len(texts), AT_ONCE):
        encodings = coder.encode_batch(list(texts[first : first + AT_ONCE]), add_special_tokens=False)
        pieces += [np.array([*head, *one.ids], dtype=kind) for one in encodings]
    return pieces


def combined_fingerprint(corpus: str, coder: Any) -> str:
    """Of the documents and the tokenizer together."""
    return hashlib.sha256(f"{corpus} {coder.to_str()}".encode()).hexdigest()


def retokenised(corpus: Corpus, tokenizer: str, separator: str | None = None) -> Corpus:
    """A corpus of bytes in a tokenizer's ids: the same documents in the same splits. Raises ConfigError."""
    coder = load_tokenizer(tokenizer)
    head = separator_ids(coder, separator)
    print_ = combined_fingerprint(f"{corpus.fingerprint} {separator}", coder)
    if print_ not in _LATEST:
        train, validation, test = (_encoded_split(corpus.split(name), coder, head) for name in SPLITS)
        made = Corpus(corpus.label, print_, coder.get_vocab_size(), train, validation, test)
        _LATEST.clear()
        _LATEST[print_] = made
    return _LATEST[print_]


def _encoded_split(split: Split, coder: Any, head: list[int]) -> Split:
    """Bytes that a cut through a document has parted from their character are left out, and not counted."""
    own = 0 if split.separator is None else 1
    documents = [split.document(i) for i in range(split.n_documents)]
    texts = [d[own if d[0] == split.separator else 0 :].tobytes().decode(errors="ignore") for d in documents]
    pieces = encoded(coder, texts, head)
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    starts = ends - np.array([len(piece) for piece in pieces], dtype=np.int64)
    tokens = np.concatenate(pieces) if pieces else np.empty(0, np.uint16)
    return Split(tokens, starts, ends, split.names, head[0] if head else None, sum(len(text.encode()) for text in texts))
