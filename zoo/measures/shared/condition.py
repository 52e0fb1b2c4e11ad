"""Under which condition a number was measured: a mapping inside Python, `key=value;key=value` only in files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any


class Condition(Mapping[str, int | float | str]):
    """The keys of a measure's row, in their order. Immutable, and equal to every mapping with the same values.

    A value is what its text in a file says, a number or text: 0.12345678 is 0.123457, (1, 2) is the text `(1, 2)`. So a condition that was
    written and read back is the same as before. Empty: of the model as a whole.
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._values = {key: _read(written(value)) for key, value in (values or {}).items()}

    @classmethod
    def parse(cls, text: str) -> Condition:
        """From `length=128;depth=0.5`."""
        return cls(dict(part.split("=", 1) for part in text.split(";") if part))

    def __getitem__(self, key: str) -> int | float | str:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __str__(self) -> str:
        """As files have it: `length=128;depth=0.5`."""
        return ";".join(f"{key}={written(value)}" for key, value in self._values.items())

    def __repr__(self) -> str:
        return f"Condition({str(self)!r})"


def written(value: Any) -> str:
    """A value as files have it: floats with six digits at most."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _read(text: str) -> int | float | str:
    """The number that is written like this; text where there is none."""
    for number in (int, float):
        try:
            value = number(text)
        except ValueError:
            continue
        if math.isfinite(value) and written(value) == text:
            return value
    return text
