"""The split that a file's name declares: train.txt, wiki-VAL.jsonl, test-00001.txt, dev/a.md; and what a folder of such files means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from blocks.errors import ConfigError

WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "validation",
    "test": "test",
}
CODE = ".py"  # train.py and test.py are programs: of these only the outermost folder counts
ABOUT = ("readme", "license", "licence", "changelog", "notice", "citation")  # files about a data set
_WORD = "|".join(WORDS)
_STEM = re.compile(rf"(?:.*[._-])?({_WORD})(?:[._-]\d[\w.-]*)?|({_WORD})\..*", re.IGNORECASE)


def split_of(name: str) -> str | None:
    """The split that a file's path declares by a folder or by its stem, in any case; None: none. Raises ConfigError if it says two."""
    path = PurePosixPath(name)
    folders = [WORDS[part.lower()] for part in path.parts[:-1] if part.lower() in WORDS]
    if path.suffix == CODE:
        return WORDS.get(path.parts[0].lower()) if len(path.parts) > 1 else None
    match = _STEM.fullmatch(path.stem)
    said = dict.fromkeys([*folders, *([WORDS[(match[1] or match[2]).lower()]] if match else [])])
    if len(said) > 1:
        raise ConfigError("path", name, f"its name says {' and '.join(said)}", "rename it, or its folder")
    return next(iter(said), None)


def declared_splits(names: Sequence[str]) -> dict[str, str] | None:
    """File -> split where the names declare them; without files about the data (README). None: no name declares a held-out split.

    Raises ConfigError where some names declare a split and others don't: which of them should be trained on is not for us to guess.
    """
    splits = {name: split_of(name) for name in names}
    if not set(splits.values()) & {"validation", "test"}:
        return None
    silent = [name for name, split in splits.items() if split is None and not _about(name)]
    held = next(name for name, split in splits.items() if split in ("validation", "test"))
    if silent:
        rule = f"declares a split, but {', '.join(silent[:3])}{' ...' if len(silent) > 3 else ''} no split"
        raise ConfigError("path", held, rule, "name all of them train, validation or test (a folder, or the end of the stem), or none")
    if "train" not in splits.values():
        raise ConfigError("path", held, "declares a split, but no file is named train", "name the training files train, or rename it")
    return {name: split for name, split in splits.items() if split is not None}


def _about(name: str) -> bool:
    return PurePosixPath(name).stem.lower() in ABOUT
