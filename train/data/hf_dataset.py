"""A Hugging Face data set with a tokenizer (needs the network, and the packages `datasets` and `tokenizers`).

All its documents are tokenised into memory before training: for more than a few gigabytes, write a token file once and use
`kind: tokens`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from blocks.errors import ConfigError
from train.data.corpus import Corpus, Document, ReadingReport, Spans, byte_corpus, fingerprint, split_by_contents
from train.data.tokenizer import (
    LOSSY,
    combined_fingerprint,
    encoded,
    import_package,
    load_tokenizer,
    loss_of_text,
    separator_ids,
    vocab_size,
)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Which documents."""

    id: str  # of the data set
    name: str | None = None  # its configuration, if it has several
    revision: str | None = None  # a commit or tag: pin it
    split: str = "train"  # of the data set; it is split again by document
    column: str = "text"  # that holds the text
    limit: int | None = None  # only the first documents, streamed; null = all


def hub_corpus(dataset: Dataset, tokenizer: str = "bytes", separator: str | None = None) -> Corpus:
    """The documents, as bytes or as a tokenizer's ids; `separator`: the tokenizer's token that begins a document."""
    documents = list(islice(_documents(dataset), dataset.limit))
    if not any(d.data for d in documents):
        raise ConfigError("id", dataset.id, f"has no text in {dataset.column!r} of {dataset.split!r}")
    label = dataset.id if dataset.name is None else f"{dataset.id}/{dataset.name}"
    print_ = fingerprint(documents)
    if tokenizer == "bytes":
        if separator is not None:
            raise ConfigError("separator", separator, "bytes have their own separator, byte 0", "separator: null")
        return byte_corpus(label, print_, documents, None)
    coder = load_tokenizer(tokenizer)
    return _encoded(label, combined_fingerprint(print_, coder), [d for d in documents if d.data], coder, separator)


def _documents(dataset: Dataset) -> Iterator[Document]:
    datasets = import_package("datasets", "kind", "hub")
    stream = dataset.limit is not None
    try:
        rows = datasets.load_dataset(dataset.id, dataset.name, split=dataset.split, revision=dataset.revision, streaming=stream)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError("id", dataset.id, f"can't be loaded: {' '.join(str(error).split())}") from error
    for number, row in enumerate(rows):
        if not isinstance(row.get(dataset.column), str):
            raise ConfigError("column", dataset.column, f"{dataset.id} has no such text", f"columns: {', '.join(row)}")
        yield Document(str(number), row[dataset.column].encode("utf-8"))


def _encoded(label: str, print_: str, documents: list[Document], coder: Any, separator: str | None) -> Corpus:
    head = separator_ids(coder, separator)
    texts = [d.data.decode() for d in documents]
    pieces, loss = encoded(coder, texts, head), loss_of_text(coder, texts)
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    starts = ends - np.array([len(piece) for piece in pieces], dtype=np.int64)
    sizes = np.array([len(d.data) for d in documents], dtype=np.int64)
    spans = Spans(np.concatenate(pieces), starts, ends, tuple(d.name for d in documents), sizes if loss is None else None)
    contents = [hashlib.sha256(d.data).digest() for d in documents]
    corpus = split_by_contents(label, print_, vocab_size(coder), spans, contents, head[0] if head else None)
    return corpus if loss is None else replace(corpus, report=ReadingReport(notes=(LOSSY.format("the tokenizer", loss),)))
