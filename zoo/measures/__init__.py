"""Measures: what a trained model remembers, forgets, and where it collapses. All through the contract: state in, state out.

A measure is one file in this folder, found by its name: `ls zoo/measures` is the catalogue. zoo.measures.shared.base.Measure says what the
file holds. It works on any model that zoo.build makes, reads in pieces of bounded size, and gives the same numbers whatever the pieces.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:  # names are known without torch
    from zoo.measures.shared.base import Measure


class Catalogue(Mapping[str, "Measure"]):
    """Measures by their `measure:`, in alphabetical order. A file is imported when its measure is asked for."""

    names = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg))

    def __getitem__(self, name: str) -> Measure:
        if name not in self.names:
            raise KeyError(name)
        return cast("Measure", importlib.import_module(f"{__name__}.{name}"))

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


MEASURES = Catalogue()
