"""Errors in the user's input: one line with place, value, rule and alternatives."""

from __future__ import annotations

from typing import Any


class ConfigError(ValueError):
    """The user's input is wrong: place, value, rule and alternatives, in one line. It is shown without a traceback."""

    def __init__(self, place: str, value: Any, rule: str, alternatives: str = "") -> None:
        self.place, self.value, self.rule, self.alternatives = place, value, rule, alternatives
        assignment = "" if value is None else f" = {value!r}"
        super().__init__(f"{place}{assignment}: {rule}" + (f". {alternatives}" if alternatives else ""))

    def within(self, prefix: str) -> ConfigError:
        """The same error seen from outside: its place is prefixed with `prefix.`."""
        place = f"{prefix}.{self.place}" if self.place else prefix
        return ConfigError(place, self.value, self.rule, self.alternatives)


def require(ok: bool, place: str, value: Any, rule: str, alternatives: str = "") -> None:
    """Raise ConfigError unless `ok`."""
    if not ok:
        raise ConfigError(place, value, rule, alternatives)


def divisors(n: int) -> str:
    """The divisors of n as text, for the 'alternatives' of an error."""
    return "divisors: " + ", ".join(str(i) for i in range(1, n + 1) if n % i == 0)


def one_of(place: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise ConfigError unless value is one of `allowed`."""
    require(value in allowed, place, value, "is not one of the choices", "choices: " + ", ".join(allowed))
