"""The tokenizer of byte models as a tokenizer.json: id = byte of the UTF-8 text, so that what reads tokenizers reads byte models.

Byte 0 is the one special token: it begins a document and ends the one before, as in the zoo's byte corpora.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BYTES = 256
SEPARATOR = "\0"
TOKENIZER, TOKENIZER_CONFIG, GENERATION = "tokenizer.json", "tokenizer_config.json", "generation_config.json"


def byte_tokenizer() -> dict[str, Any]:
    """The contents of tokenizer.json: byte-level BPE without a merge."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    vocab = {character: byte for byte, character in enumerate([SEPARATOR, *_printable()[1:]])}
    return {
        "version": "1.0",
        "added_tokens": [{"id": 0, "content": SEPARATOR} | flags],
        "pre_tokenizer": level,
        "decoder": level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }


def write_byte_tokenizer(folder: Path) -> None:
    """tokenizer.json, and what transformers reads beside it."""
    names = {"bos_token": SEPARATOR, "eos_token": SEPARATOR, "pad_token": SEPARATOR}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **names}
    generation = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    for name, values in ((TOKENIZER, byte_tokenizer()), (TOKENIZER_CONFIG, config), (GENERATION, generation)):
        (folder / name).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _printable() -> list[str]:
    """The character that byte-level tokenizers write for each byte: itself where Latin-1 prints it, else the next one from U+0100 on."""
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in shown else next(others)) for byte in range(BYTES)]
