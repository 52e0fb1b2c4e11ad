"""Text to a model's ids and back: the tokenizer in its folder, that of the data it was trained on, or bytes."""

from __future__ import annotations

import codecs
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from blocks.errors import require
from train.data.tokenizer import for_documents, load_tokenizer, separator_ids
from train.data.tokenizer import vocab_size as ids_of
from zoo.config.schema import load_yaml
from zoo.convert.byte_tokenizer import BYTES, GENERATION, TOKENIZER, TOKENIZER_CONFIG, byte_tokenizer
from zoo.convert.hf_folder import copy_companions, read_json, special_ids, write_json
from zoo.convert.model_folder import home
from zoo.weights.safetensors_io import CONFIG

SEPARATOR = 0  # of byte models: it begins a document, and ends the one before


class Coder(NamedTuple):
    """Text to ids and back."""

    ids: Callable[[str], list[int]]  # of a prompt, what begins a document included
    text: Callable[[int], str]  # what the next id adds to the text; "" while a character is not whole
    rest: Callable[[], str]  # what is left when there are no more
    ends: frozenset[int]  # ids that end the text


class Trained(NamedTuple):
    """The tokenizer that a run's data name."""

    tokenizer: str  # a tokenizer.json, or the id of a model
    separator: str | None  # the token that begins a document


def coder_of(path: Path, vocab_size: int) -> Coder:
    """The tokenizer of a model's folder, or of the data that the run in it was trained on; bytes where there is none and the model has 256
    ids. Raises ConfigError."""
    folder = home(path)
    trained = trained_with(folder)
    if has_tokenizer(folder):
        return _folders(folder, vocab_size)
    if trained is not None:
        return _trained(trained, vocab_size)
    require(vocab_size == BYTES, str(folder), None, f"has no {TOKENIZER}, and {vocab_size} ids are no bytes", f"put {TOKENIZER} beside it")
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return Coder(
        lambda text: [SEPARATOR, *text.encode()],
        lambda token: decoder.decode(bytes([token])),
        lambda: decoder.decode(b"", final=True),
        frozenset([SEPARATOR]),
    )


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer other than that of bytes."""
    return (folder / TOKENIZER).is_file() and read_json(folder / TOKENIZER) != byte_tokenizer()


def trained_with(folder: Path) -> Trained | None:
    """The tokenizer of a run's data; None: bytes, a task, or no run."""
    data = load_yaml(folder / CONFIG).get("data") if (folder / CONFIG).is_file() else None
    name = data.get("tokenizer") if isinstance(data, Mapping) else None
    return None if not isinstance(data, Mapping) or name in (None, "bytes") else Trained(str(name), data.get("separator"))


@contextmanager
def companions(path: Path) -> Iterator[Path]:
    """A folder with the tokenizer's files that belong to the model at `path`. Raises ConfigError."""
    folder = home(path)
    trained = trained_with(folder)
    if trained is None or (folder / TOKENIZER).is_file():
        yield folder
        return
    with tempfile.TemporaryDirectory() as made:
        _write(trained, Path(made))
        yield Path(made)


def _write(trained: Trained, out: Path) -> None:
    """tokenizer.json as it was trained with, and what transformers reads beside it."""
    coder, source = load_tokenizer(trained.tokenizer), Path(trained.tokenizer)
    if source.is_file():
        copy_companions(source.parent, out)
        shutil.copyfile(source, out / TOKENIZER)
    else:
        coder.save(str(out / TOKENIZER))
    names: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if trained.separator is not None:
        (token,) = separator_ids(coder, trained.separator)
        names |= {"bos_token": trained.separator, "eos_token": trained.separator}
        write_json(out / GENERATION, {"bos_token_id": token, "eos_token_id": token})
    if not (out / TOKENIZER_CONFIG).is_file():
        write_json(out / TOKENIZER_CONFIG, names)


def _folders(folder: Path, vocab_size: int) -> Coder:
    """With the special tokens that the tokenizer itself adds."""
    coder = _loaded(str(folder / TOKENIZER), vocab_size)
    ends = special_ids(folder).get("eos_token_id", [])
    return _coder(coder, lambda text: list(coder.encode(text).ids), frozenset(ends if isinstance(ends, list) else [ends]))


def _trained(trained: Trained, vocab_size: int) -> Coder:
    """As the documents of the training were read."""
    coder = _loaded(trained.tokenizer, vocab_size)
    head = separator_ids(coder, trained.separator)
    plain = for_documents(coder)
    return _coder(coder, lambda text: [*head, *plain.encode(text, add_special_tokens=False).ids], frozenset(head))


def _loaded(name: str, vocab_size: int) -> Any:
    coder = load_tokenizer(name)
    size = ids_of(coder)
    require(size <= vocab_size, name, size, f"has more tokens than the model has ids, {vocab_size}")
    return coder


def _coder(coder: Any, ids: Callable[[str], list[int]], ends: frozenset[int]) -> Coder:
    written = _Written(coder)
    return Coder(lambda text: written.begin(ids(text)), written.text, written.rest, ends)


class _Written:
    """A text token by token: decoded behind its prompt, since many tokenizers take a space from the first token that they decode."""

    def __init__(self, coder: Any) -> None:
        self.coder = coder

    def begin(self, ids: list[int]) -> list[int]:
        from tokenizers.decoders import DecodeStream  # there, or load_tokenizer has said so

        self.ids, self.shown = list(ids), len(self.coder.decode(ids))
        self.stream = DecodeStream(ids=ids, skip_special_tokens=True)
        return ids

    def text(self, token: int) -> str:
        self.ids.append(token)
        added = self.stream.step(self.coder, token) or ""
        self.shown += len(added)
        return added

    def rest(self) -> str:
        """A character that was begun and never became whole."""
        return str(self.coder.decode(self.ids)[self.shown :])
