"""Matched compute: sizes at which every model costs what the reference costs, within a tolerance.

    match(models, reference="transformer", axis="flops", length=256, vary={"mamba2": ["width", "blocks.F.hidden"]})

Varying keys are tried in hardware-friendly multiples: all but the last on a grid around what the YAML says, the last one by bisection
(every axis grows with every size). Among the sizes within the tolerance the one nearest to the YAML's wins.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from blocks.errors import ConfigError, one_of, require
from zoo.config.block import with_value
from zoo.config.model import ModelConfig, validate
from zoo.ledger.ledger import Ledger, ledger

AXES = ("flops", "params", "state")
GRID = 24  # values tried for each varying key but the last
SPAN = 4  # a size may shrink or grow by this factor
DEFAULT_MULTIPLE = 8
MULTIPLES = {"depth": 1, "width": 8}


@dataclass(frozen=True)
class Matched:
    """One model of a match."""

    config: ModelConfig
    ledger: Ledger
    sizes: dict[str, int]  # the varying keys and what they became
    mismatch: float  # (own - reference) / reference on the axis


@dataclass(frozen=True)
class Match:
    """A set of models at one length, alike on one axis."""

    axis: str
    reference: str
    tolerance: float
    length: int
    models: dict[str, Matched]

    @property
    def worst(self) -> float:
        """The largest absolute mismatch."""
        return max(abs(m.mismatch) for m in self.models.values())


def match(
    models: Mapping[str, ModelConfig],
    *,
    reference: str,
    length: int,
    axis: str = "flops",
    vary: Mapping[str, Sequence[str] | str] | None = None,
    tolerance: float = 0.01,
) -> Match:
    """Size every model but the reference so that it equals the reference on `axis` at `length` within `tolerance`.

    axis: flops (one training sequence), params (without the embedding), state (bytes after `length` tokens).
    vary: for each model what may vary: width, depth, or a block's own key such as blocks.F.hidden; default: width.
    Raises ConfigError, with the nearest possible sizes, where the target can't be reached.
    """
    one_of("match.axis", axis, AXES)
    require(reference in models, "match.reference", reference, "is none of the models", f"Models: {', '.join(models)}")
    require(0 < tolerance < 1, "match.tolerance", tolerance, "must be in (0, 1)")
    require(length >= 1, "match.length", length, "must be at least 1")
    target = value(ledger(models[reference], length), axis)
    require(target > 0, "match.axis", axis, f"is 0 for the reference {reference} at length {length}: nothing to match")
    matched = {}
    for name, config in models.items():
        if name == reference:
            matched[name] = Matched(config, ledger(config, length), {}, 0.0)
            continue
        keys = (vary or {}).get(name, "width")
        keys = [keys] if isinstance(keys, str) else list(keys)
        matched[name] = _solve(name, config, keys, axis, target, length, tolerance)
    return Match(axis, reference, tolerance, length, matched)


def value(row: Ledger, axis: str) -> int:
    """A model's number on an axis."""
    return {"flops": row.flops_train, "params": row.params_non_embedding, "state": row.state_bytes}[axis]


def _solve(name: str, config: ModelConfig, keys: list[str], axis: str, target: int, length: int, tolerance: float) -> Matched:
    start = [_read(name, config, key) for key in keys]
    best: tuple[tuple[int, float], Matched] | None = None
    for sizes in _candidates(config, keys, start, axis, target, length):
        row = _ledger_at(config, keys, sizes, length)
        if row is None:
            continue
        mismatch = (value(row, axis) - target) / target
        distance = sum(abs(math.log(a / b)) for a, b in zip(sizes, start, strict=True))
        rank = (0, distance) if abs(mismatch) <= tolerance else (1, abs(mismatch))
        if best is None or rank < best[0]:
            best = rank, Matched(_resized(config, keys, sizes), row, dict(zip(keys, sizes, strict=True)), mismatch)
    if best is None:
        raise ConfigError(f"match.vary.{name}", ", ".join(keys), "no size of it can be built", "let another key vary")
    (miss, _), matched = best
    if miss:
        raise ConfigError(
            f"match.vary.{name}",
            ", ".join(keys),
            f"can't bring {axis} within {tolerance:.1%} of the reference's {target:,}",
            f"nearest: {_sizes_text(matched.sizes)} gives {value(matched.ledger, axis):,} ({matched.mismatch:+.2%}); "
            "let another key vary, or widen match.tolerance",
        )
    return matched


def _candidates(config: ModelConfig, keys: list[str], start: list[int], axis: str, target: int, length: int) -> Iterator[tuple[int, ...]]:
    """Grid over all keys but the last, bisection over the last, with its neighbours; the model as it is where nothing may vary."""
    if not keys:
        yield ()
        return
    *coarse, last = keys
    step = MULTIPLES.get(last, DEFAULT_MULTIPLE)
    top = max(2, math.ceil(SPAN * SPAN * start[-1] / step))
    for outer in itertools.product(*(_grid(key, size) for key, size in zip(coarse, start, strict=False))):
        low, high = 1, top
        while high - low > 1:
            middle = (low + high) // 2
            row = _nearest_buildable(config, keys, outer, middle, high, step, length)
            if row is None or value(row[1], axis) > target:
                high = middle
            else:
                low = max(row[0], low + 1) if row[0] < high else middle
        yield from ((*outer, n * step) for n in range(max(1, low - 4), low + 6))
        if start[-1] % step:  # the YAML's own value may be off the grid
            yield (*outer, start[-1])


def _nearest_buildable(
    config: ModelConfig, keys: list[str], outer: tuple[int, ...], n: int, high: int, step: int, length: int
) -> tuple[int, Ledger] | None:
    """The first size from n upwards that can be built (heads must divide widths), with its ledger."""
    for m in range(n, min(high, n + 32)):
        row = _ledger_at(config, keys, (*outer, m * step), length)
        if row is not None:
            return m, row
    return None


def _grid(key: str, size: int) -> list[int]:
    """Values around `size` in multiples, nearest first."""
    step = MULTIPLES.get(key, DEFAULT_MULTIPLE)
    values = {size} | {n * step for n in range(1, SPAN * size // step + 1)}
    return sorted(values, key=lambda v: abs(math.log(v / size)))[:GRID]


def _ledger_at(config: ModelConfig, keys: list[str], sizes: Sequence[int], length: int) -> Ledger | None:
    try:
        changed = _resized(config, keys, sizes)
        validate(changed)
    except ConfigError:
        return None  # these sizes can't be built: not a candidate
    return ledger(changed, length)


def _resized(config: ModelConfig, keys: Sequence[str], sizes: Sequence[int]) -> ModelConfig:
    for key, size in zip(keys, sizes, strict=True):
        if key == "width":
            config = replace(config, d_model=size)
        elif key == "depth":
            config = replace(config, pattern=_REPEAT.sub(f"{size}*", config.pattern, count=1))
        else:
            _, block, field = key.split(".")
            config = replace(config, blocks=with_value(config.blocks, block, field, size))
    return config


_REPEAT = re.compile(r"\d+\s*\*")


def _read(name: str, config: ModelConfig, key: str) -> int:
    """The size that the YAML gives to a varying key. Raises ConfigError where the key is none."""
    place = f"match.vary.{name}"
    if key == "width":
        return config.d_model
    if key == "depth":
        repeat = _REPEAT.match(config.pattern.lstrip(" ("))
        require(repeat is not None, place, key, "needs a pattern that begins with a repeat", "for example: 4*(A F)")
        return int(repeat[0].rstrip("* ")) if repeat else 1
    parts = key.split(".")
    known = "width, depth, or a block's own key such as blocks.F.hidden"
    require(len(parts) == 3 and parts[0] == "blocks", place, key, "is not a size that can vary", known)
    require(parts[1] in config.blocks, place, key, f"there is no block {parts[1]!r}", f"Blocks: {', '.join(config.blocks)}")
    block = config.blocks[parts[1]]
    size = getattr(block.config, parts[2]) if parts[2] in {f.name for f in fields(block.config)} else None
    if not isinstance(size, int) or isinstance(size, bool):
        rule = f"{block.type} has no whole number {parts[2]!r} to vary (it is {size!r})"
        raise ConfigError(place, key, rule, "give it a value in the YAML")
    return size


def _sizes_text(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{key} = {size}" for key, size in sizes.items()) or "as it is, it"
