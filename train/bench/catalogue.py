"""All benchmark cases, by discovery in train/bench/cases."""

import importlib
import pkgutil
from collections.abc import Iterator, Sequence

from blocks.errors import ConfigError
from train.bench import cases
from train.bench.case import Case


def all_cases() -> Iterator[Case]:
    """Every case of every family, none of them built."""
    for module in pkgutil.iter_modules(cases.__path__):
        yield from importlib.import_module(f"{cases.__name__}.{module.name}").cases()


def chosen(words: Sequence[str]) -> list[Case]:
    """The cases whose names hold any of the words; all without words. Raises ConfigError if a word finds none."""
    every = list(all_cases())
    for word in words:
        if not any(word in case.name for case in every):
            operations = ", ".join(sorted({case.operation for case in every}))
            raise ConfigError("zoo bench", word, "is in the name of no case", f"operations: {operations}")
    return [case for case in every if not words or any(word in case.name for word in words)]


def find(name: str) -> Case:
    """The case of that name. Raises KeyError if there is none."""
    return {case.name: case for case in all_cases()}[name]
