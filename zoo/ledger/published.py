"""The published number of parameters of a model of configs/models/published, and where it was published.

The mapping `published:` of a YAML:

    published: {parameters: 8_030_261_248, source: safetensors of meta-llama/Llama-3.1-8B}

A count that was published rounded is text, digits and a unit (K, M, B, T): "2.7B" is 2 650 000 000 to 2 749 999 999 parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from blocks.errors import require
from zoo.config.schema import load_yaml, parse

UNITS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published count of parameters. the zoo's count + what stands apart = published, exactly or to the published digits."""

    parameters: int | str  # exact, or as published: "1.61B"
    source: str  # where the count was published: a checkpoint, or a paper with its arXiv id and table
    config: str | None = None  # the public config that the sizes were compared with; null: none, a comment `# unverified:` names them
    apart: dict[str, int] = field(default_factory=dict)  # what is counted there and isn't in the zoo's model (below 0: the other way round)
    differs: str | None = None  # why the counts differ, where they can't but do so

    def __post_init__(self) -> None:
        text = self.parameters
        if isinstance(text, str):
            rule = "must be a whole number, or text with digits and a unit (K, M, B, T)"
            require(re.fullmatch(r"\d+(\.\d+)?[KMBT]", text) is not None, "parameters", text, rule, 'for example "2.7B"')
        else:
            require(text > 0, "parameters", text, "must be above 0")
        require(bool(self.source.strip()), "source", self.source, "must say where the count was published")
        for name, value in self.apart.items():
            counted = isinstance(value, int) and not isinstance(value, bool) and value != 0
            require(counted, f"apart.{name}", value, "must be a whole number of parameters other than 0")

    def agrees(self, parameters: int) -> bool:
        """Whether a model of so many parameters is of the published size."""
        total = parameters + sum(self.apart.values())
        if isinstance(self.parameters, int):
            return total == self.parameters
        whole, _, decimals = self.parameters[:-1].partition(".")
        step = UNITS[self.parameters[-1]] // 10 ** len(decimals)
        return (total + step // 2) // step == int(whole + decimals)

    def as_dict(self, parameters: int) -> dict[str, Any]:
        """All of it and whether a model of so many parameters agrees."""
        return asdict(self) | {"agrees": self.agrees(parameters)}


def read_published(source: str | Path | Mapping[str, Any]) -> Published | None:
    """The mapping `published:` of a model's YAML, or of what it holds; None where it has none. Raises ConfigError on a wrong one."""
    values = (load_yaml(source) if isinstance(source, (str, Path)) else source).get("published")
    return None if values is None else parse(Published, values, "published")
