"""What the user probably meant: the nearest word, the key with its full place."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from blocks.errors import ConfigError

MOST = 3  # keys that one message suggests


def nearest(word: str, names: Collection[str]) -> str | None:
    """The name most like the word: the initials of its parts (lr of learning_rate), or else a name with almost the same letters."""
    initials = "".join(part[:1] for part in word.split("_"))
    by_letters = get_close_matches(word, list(names), n=1)
    return initials if "_" in word and initials in names else by_letters[0] if by_letters else None


def did_you_mean(word: str, names: Collection[str]) -> str:
    """The start of an error's alternatives: 'did you mean NAME? ', or nothing."""
    name = nearest(word, names)
    return f"did you mean {name}? " if name is not None else ""


def keys(values: Any, kind: Any = None, place: str = "") -> Iterator[str]:
    """The dotted keys that a YAML may hold: those of its dataclass `kind`, and where that says nothing those that it does hold."""
    inside = dict(values) if isinstance(values, Mapping) else {}
    types = _types(kind, inside)
    for name in {**types, **inside}:
        key = f"{place}.{name}" if place else str(name)
        yield key
        yield from keys(inside.get(name), types.get(name), key)


def _types(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> type of what a mapping may hold."""
    if typing.get_origin(kind) is dict:
        return dict.fromkeys(values, typing.get_args(kind)[1])
    for option in (kind, *typing.get_args(kind)):
        if dataclasses.is_dataclass(option):
            hints = typing.get_type_hints(option)
            return {field.name: hints[field.name] for field in dataclasses.fields(option) if field.init}
    return {}


def with_known_key(error: ConfigError, overrides: Collection[str], known: Collection[str]) -> ConfigError:
    """The same error; if it refuses the key of an override, it suggests the known keys that are most like it: one beside it by its last
    name, others with their full place."""
    if not error.rule.endswith("has no such key") or error.place not in {text.partition("=")[0] for text in overrides}:
        return error
    parent, _, word = error.place.rpartition(".")
    beside = nearest(word, [key.rpartition(".")[2] for key in known if key.rpartition(".")[0] == parent])
    name = nearest(word, {key.rpartition(".")[2] for key in known})
    similar = [beside] if beside else [key for key in known if key.rpartition(".")[2] == name][:MOST]
    if not similar:
        return error
    return ConfigError(error.place, error.value, error.rule, f"did you mean {' or '.join(similar)}? {_without_hint(error)}")


def _without_hint(error: ConfigError) -> str:
    return error.alternatives.partition("? ")[2] if error.alternatives.startswith("did you mean ") else error.alternatives
