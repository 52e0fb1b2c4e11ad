"""Tokenizers: a tokenizer.json or the id of a model, by the package `tokenizers`; and byte corpora in a tokenizer's ids."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from blocks.errors import ConfigError
from train.data.corpus import SPLITS, Corpus, Split

AT_ONCE = 256  # documents encoded by one call
SAMPLED = 256  # documents that are decoded again
EXCERPT = 20  # characters shown of a difference
LOSSY = "no bits per byte: {} does not give every document back, {}"
_LATEST: dict[str, Corpus] = {}  # fingerprint -> corpus: what was encoded last, since a command opens its data several times


def import_package(package: str, place: str, value: Any) -> ModuleType:
    """An optional package. Raises ConfigError, naming what to install."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ConfigError(place, value, f"needs the package {package}", "run: pip install datasets tokenizers") from None


def load_tokenizer(name: str) -> Any:
    """A tokenizers.Tokenizer from a tokenizer.json or the id of a model, which neither truncates nor pads. Raises ConfigError (place
    `tokenizer`)."""
    tokenizers = import_package("tokenizers", "tokenizer", name)
    try:
        coder = tokenizers.Tokenizer.from_file(name) if name.endswith(".json") else tokenizers.Tokenizer.from_pretrained(name)
    except Exception as error:  # the library raises bare Exception
        raise ConfigError("tokenizer", name, f"can't be loaded: {error}", "bytes, a tokenizer.json, or the id of a model") from error
    coder.no_truncation()  # a tokenizer.json keeps both from its last use
    coder.no_padding()
    return coder


def vocab_size(coder: Any) -> int:
    """The ids of a tokenizer: the largest + 1, since ids may leave gaps."""
    return 1 + max(coder.get_vocab(with_added_tokens=True).values(), default=-1)


def separator_ids(coder: Any, separator: str | None) -> list[int]:
    """The one id that begins a document, none where separator is None. Raises ConfigError."""
    if separator is None:
        return []
    token = coder.token_to_id(separator)
    if token is None:
        raise ConfigError("separator", separator, "the tokenizer has no such token", "<|endoftext|> or </s> in many")
    return [token]


def for_documents(coder: Any) -> Any:
    """The tokenizer for the text of documents: nothing is added, and the text of a special token is text."""
    plain = coder.from_str(coder.to_str())
    plain.post_processor = None
    plain.encode_special_tokens = True
    return plain


def encoded(coder: Any, texts: Sequence[str], head: Sequence[int]) -> list[np.ndarray]:
    """The ids of each text, `head` (the separator, or nothing) first; uint16 where the vocabulary fits. Raises ConfigError where a text
    holds what the tokenizer reads as the separator."""
    plain = for_documents(coder)
    dtype = np.uint16 if vocab_size(coder) <= 1 << 16 else np.uint32
    pieces = []
    for first in range(0, len(texts), AT_ONCE):
        encodings = plain.encode_batch(list(texts[first : first + AT_ONCE]), add_special_tokens=False)
        for number, one in enumerate(encodings, first):
            if set(head) & set(one.ids):
                rule = f"the text of document {number} is read as this token: {texts[number][:EXCERPT]!r}..."
                raise ConfigError("separator", coder.id_to_token(head[0]), rule, "another separator, or null")
            pieces.append(np.array([*head, *one.ids], dtype=dtype))
    return pieces


def loss_of_text(coder: Any, texts: Sequence[str]) -> str | None:
    """How a sample of documents differs from what their ids decode to; None: they come back whole, so that bits per byte mean something.

    One space more in front is no loss: many tokenizers put it before every text.
    """
    plain = for_documents(coder)
    for i in range(0, len(texts), max(1, len(texts) // SAMPLED)):
        text = texts[i]
        decoded = plain.decode(plain.encode(text, add_special_tokens=False).ids, skip_special_tokens=False)
        if decoded not in (text, f" {text}"):
            at = next((k for k, (a, b) in enumerate(zip(text, decoded, strict=False)) if a != b), min(len(text), len(decoded)))
            return f"{text[at : at + EXCERPT]!r} comes back as {decoded[at : at + EXCERPT]!r}"
    return None


def combined_fingerprint(corpus: str, coder: Any) -> str:
    """Of the documents and the tokenizer together."""
    return hashlib.sha256(f"{corpus} {coder.to_str()}".encode()).hexdigest()


def retokenised(corpus: Corpus, tokenizer: str, separator: str | None = None) -> Corpus:
    """A corpus of bytes in a tokenizer's ids: the same documents in the same splits. Raises ConfigError."""
    coder = load_tokenizer(tokenizer)
    head = separator_ids(coder, separator)
    print_ = combined_fingerprint(f"{corpus.fingerprint} {separator}", coder)
    if print_ not in _LATEST:
        texts = {name: _texts(corpus.split(name)) for name in SPLITS}
        loss = loss_of_text(coder, [text for split in texts.values() for text in split])
        train, validation, test = (_encoded_split(corpus.split(name), texts[name], coder, head, loss is None) for name in SPLITS)
        notes = () if loss is None else (LOSSY.format(tokenizer, loss),)
        report = replace(corpus.report, notes=(*corpus.report.notes, *notes))
        _LATEST.clear()
        _LATEST[print_] = Corpus(corpus.label, print_, vocab_size(coder), train, validation, test, report)
    return _LATEST[print_]


def _texts(split: Split) -> list[str]:
    """Bytes that a cut through a document has parted from their character are left out, and not counted."""
    own = 0 if split.separator is None else 1
    documents = [split.document(i) for i in range(split.n_documents)]
    return [d[own if d[0] == split.separator else 0 :].tobytes().decode(errors="ignore") for d in documents]


def _encoded_split(split: Split, texts: list[str], coder: Any, head: list[int], lossless: bool) -> Split:
    pieces = encoded(coder, texts, head)
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    starts = ends - np.array([len(piece) for piece in pieces], dtype=np.int64)
    tokens = np.concatenate(pieces) if pieces else np.empty(0, np.uint16)
    n_bytes = sum(len(text.encode()) for text in texts) if lossless else None
    return Split(tokens, starts, ends, split.names, head[0] if head else None, n_bytes)
