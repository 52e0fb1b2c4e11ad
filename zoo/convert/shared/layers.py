"""Lists of blocks, as checkpoints have them, and named blocks with a pattern, as the zoo has them; where each block's weights are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from blocks.base import Config
from blocks.errors import ConfigError
from zoo.config.layers import block_key
from zoo.config.model import USES, ModelConfig

Spec = Mapping[str, Any]  # a block as in YAML: {type: ..., its fields}
LETTERS = {"swiglu": "F", "mlp": "F", "gqa": "A"}
# keys of a model that say nothing of what it computes, or are compared by layer
FREE = ("dropout", "plugins", "blocks", "pattern", "norm_place")


class Place(NamedTuple):
    """One block of the stack."""

    sublayer: int  # index of its residual sub-layer: its norms are stack.norms.{sublayer} and stack.post_norms.{sublayer}
    type: str
    config: Config
    weights: str  # prefix of its tensors' names
    name: str  # in the YAML


def places(config: ModelConfig) -> list[tuple[Place, ...]]:
    """The blocks of each residual sub-layer, its parallel branches in a tuple."""
    named, sublayers = config.named, []
    for index, names in enumerate(config.layers):
        keys = [block_key(index, name, named[name].share) for name in names]
        sublayers.append(
            tuple(Place(index, named[n].type, named[n].config, f"stack.blocks.{key}", n) for n, key in zip(names, keys, strict=True))
        )
    return sublayers


def assemble(sublayers: Sequence[Sequence[Spec]]) -> dict[str, Any]:
    """{blocks, pattern} of residual sub-layers, each a list of parallel blocks: equal blocks have one name (with `share: true` only one
    and the same mapping has), repetitions are folded."""
    blocks: dict[str, Spec] = {}
    texts = ["|".join(_named(blocks, spec) for spec in branches) for branches in sublayers]
    return {"blocks": blocks, "pattern": fold(texts)}


def _named(blocks: dict[str, Spec], spec: Spec) -> str:
    for name, known in blocks.items():
        if known is spec or (known == spec and not spec.get("share")):
            return name
    letter = "W" if spec.get("window") is not None else LETTERS.get(spec["type"], spec["type"][0].upper())
    name = next(n for n in (letter, *(f"{letter}{i}" for i in range(2, len(blocks) + 3))) if n not in blocks)
    blocks[name] = spec
    return name


def fold(texts: Sequence[str]) -> str:
    """A pattern of these sub-layers: the repetition that covers most, again and again."""
    parts, start = [], 0
    while start < len(texts):
        period, times = _repetition(texts[start:])
        inside = texts[start] if period == 1 else fold(texts[start : start + period])
        bare = period == 1 and "|" not in inside
        parts.append(inside if times == 1 else f"{times}*{inside}" if bare else f"{times}*({inside})")
        start += period * times
    return " ".join(parts)


def _repetition(texts: Sequence[str]) -> tuple[int, int]:
    """(period, times) at the start that cover most, the shortest period among equals; (1, 1) where nothing is repeated."""
    best = (1, 1)
    for period in range(1, len(texts) // 2 + 1):
        times = 1
        while list(texts[:period]) == list(texts[period * times : period * (times + 1)]):
            times += 1
        if times > 1 and period * times > best[0] * best[1]:
            best = (period, times)
    return best


def only(config: ModelConfig, family: str, *types: str) -> list[tuple[Any, ...]]:
    """The block configs of each layer of the checkpoint, resolved: `types` repeats over the sub-layers, "gqa", "swiglu" or "gqa|swiglu".

    Raises ConfigError where the stack is another one."""
    sublayers, wanted = places(config), [t.split("|") for t in types]
    if len(sublayers) % len(types):
        raise ConfigError("pattern", config.pattern, f"{family} has layers of {' '.join(types)}, this is {len(sublayers)} sub-layers")
    for index, branches in enumerate(sublayers):
        here = [place.type for place in branches]
        if here != wanted[index % len(types)]:
            raise ConfigError("pattern", config.pattern, f"{family} has layers of {' '.join(types)}; sub-layer {index} is {'|'.join(here)}")
    flat = [place.config.resolved(config.d_model) for branches in sublayers for place in branches]
    size = sum(len(t) for t in wanted)
    return [tuple(flat[i : i + size]) for i in range(0, len(flat), size)]


def require_same(family: str, config: ModelConfig, read: ModelConfig) -> None:
    """Raise ConfigError unless what was written of a model (`read`, as it is read back) is that model."""
    for field in fields(ModelConfig):
        if field.name not in FREE:
            _equal(family, field.name, getattr(config, field.name), getattr(read, field.name))
    sublayers, others = places(config), places(read)
    _equal(family, "pattern", len(sublayers), len(others))
    for branches, peers in zip(sublayers, others, strict=True):
        _equal(family, "pattern", [place.type for place in branches], [place.type for place in peers])
        for place, other in zip(branches, peers, strict=True):
            for key in USES:
                _equal(family, f"blocks.{place.name}.{key}", getattr(config.named[place.name], key), getattr(read.named[other.name], key))
            a, b = place.config.resolved(config.d_model), other.config.resolved(read.d_model)
            for f in fields(a):
                _equal(family, f"blocks.{place.name}.{f.name}", getattr(a, f.name), getattr(b, f.name))
    for (place, first), (_, other_first) in zip(_firsts(sublayers), _firsts(others), strict=True):
        _equal(family, f"blocks.{place.name}.share", f"with sub-layer {first}", f"with sub-layer {other_first}")


def _firsts(sublayers: Sequence[tuple[Place, ...]]) -> list[tuple[Place, int]]:
    """Each block and the first sub-layer that has its weights."""
    flat = [place for branches in sublayers for place in branches]
    firsts = {place.weights: place.sublayer for place in reversed(flat)}
    return [(place, firsts[place.weights]) for place in flat]


def _equal(family: str, place: str, value: Any, read: Any) -> None:
    numbers = isinstance(value, float) and isinstance(read, (int, float)) and math.isclose(value, read, rel_tol=1e-12)
    if value != read and not numbers:
        raise ConfigError(place, value, f"a checkpoint of {family} can't say this: it would be read as {read!r}")
