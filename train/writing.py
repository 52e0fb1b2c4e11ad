"""`zoo generate`: a model goes on with a text, shown as it is written."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from blocks.base import require
from train.data.tokenizer import load_tokenizer
from zoo.generate import generate
from zoo.interop.byte_tokenizer import BYTES, GENERATION, TOKENIZER, byte_tokenizer
from zoo.interop.checkpoint import read_json
from zoo.weights import load

SEPARATOR = 0  # of byte models: it begins a document, and ends the one before


class Coder(NamedTuple):
    """Text to ids and back."""

    ids: Callable[[str], list[int]]  # of a prompt, what begins a document included
    text: Callable[[int], str]  # what the next id adds to the text; "" while a character is not whole
    rest: Callable[[], str]  # what is left when there are no more
    ends: frozenset[int]  # ids that end the text


class Written(NamedTuple):
    """What a text cost."""

    tokens: int
    seconds: float  # from the first token on: reading the prompt is not counted


def write(
    path: str | Path,
    prompt: str,
    show: Callable[[str], None],
    *,
    tokens: int = 256,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> Written:
    """Go on with the prompt by at most `tokens` tokens, each shown at once. Raises ConfigError."""
    model = load(path)
    coder = coder_of(Path(path), model.config.vocab_size)
    ids = coder.ids(prompt)
    require(bool(ids), "--prompt", prompt, "holds no token, and the tokenizer begins texts with none", "give at least a word")
    drawn = generate(model, torch.tensor([ids]), steps=tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    count, start = 0, 0.0
    for token in drawn:
        if count == 0:
            start = time.perf_counter()
        count += 1
        if int(token) in coder.ends:
            break
        show(coder.text(int(token)))
    show(coder.rest())
    return Written(count, time.perf_counter() - start)


def coder_of(path: Path, vocab_size: int) -> Coder:
    """The tokenizer of a folder; bytes where it has none and the model has 256 ids. Raises ConfigError."""
    folder = path if path.is_dir() else path.parent
    if (folder / TOKENIZER).is_file() and read_json(folder / TOKENIZER) != byte_tokenizer():
        return _tokenizer(folder, vocab_size)
    require(vocab_size == BYTES, str(folder), None, f"has no {TOKENIZER}, and {vocab_size} ids are no bytes", f"put {TOKENIZER} beside it")
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return Coder(
        lambda text: [SEPARATOR, *text.encode()],
        lambda token: decoder.decode(bytes([token])),
        lambda: decoder.decode(b"", final=True),
        frozenset([SEPARATOR]),
    )


def _tokenizer(folder: Path, vocab_size: int) -> Coder:
    coder = load_tokenizer(str(folder / TOKENIZER))
    from tokenizers.decoders import DecodeStream  # there, or the line above has said so

    size = coder.get_vocab_size()
    require(size <= vocab_size, str(folder / TOKENIZER), size, f"has more tokens than the model has ids, {vocab_size}")
    stream = DecodeStream(skip_special_tokens=True)
    return Coder(lambda text: list(coder.encode(text).ids), lambda token: stream.step(coder, token) or "", lambda: "", _ends(folder))


def _ends(folder: Path) -> frozenset[int]:
    """The ids that end a text, by generation_config.json; none without it."""
    if not (folder / GENERATION).is_file():
        return frozenset()
    ends: Any = read_json(folder / GENERATION).get("eos_token_id")
    return frozenset() if ends is None else frozenset(ends if isinstance(ends, list) else [ends])
