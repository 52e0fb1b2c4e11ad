"""A picture of a measure with what it says."""

from __future__ import annotations

from typing import NamedTuple


class Picture(NamedTuple):
    """A drawing with what it says."""

    title: str
    text: str
    svg: str
