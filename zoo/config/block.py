"""The blocks of a model's YAML by name: each read once into the config of its type and how the pattern uses it.

blocks:
  A: {type: gqa, n_heads: 4}
  W: {like: A, window: 128}     # A with one change
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from blocks.base import Config
from blocks.catalogue import config_class
from blocks.errors import ConfigError, one_of, require
from zoo.config.schema import check_keys, join, parse, plain

NORM_PLACES = ("pre", "post", "sandwich", "stream", "none")
INTO = ("stream", "next")


@dataclass(frozen=True, kw_only=True)
class Use:
    """How the pattern uses a block of any type: keys beside those of its config."""

    share: bool = False  # all its occurrences are one set of weights
    input_scale: float = 1.0  # factor of what it reads, behind the norm
    output_scale: float = 1.0  # factor of what it returns, before parallel blocks are mixed
    norm_place: str | None = None  # of its sub-layer's norm; null: the model's
    skip_scale: float = 1.0  # factor of the stream that it is added to
    into: str = "stream"  # where its output goes: the stream | next (only what the next sub-layer reads; see zoo.model.stack)

    def __post_init__(self) -> None:
        if self.norm_place is not None:
            one_of("norm_place", self.norm_place, NORM_PLACES)
        one_of("into", self.into, INTO)
        for key in ("input_scale", "output_scale", "skip_scale"):
            require(getattr(self, key) != 0, key, 0, "can't be 0", "1 leaves everything as it is")


USES = tuple(f.name for f in fields(Use))


@dataclass(frozen=True, kw_only=True)
class Named(Use):
    """A block of the pattern: the config of its type, and how the pattern uses it."""

    type: str  # `zoo list blocks` names them; package.module.Class where plugins allows it
    config: Config  # the keys of this type
    norm_place: str  # its own, or the model's
    like: str | None = field(default=None, compare=False)  # the block that it was written as a change of
    changes: frozenset[str] = field(default=frozenset(), compare=False)  # the keys that it was given itself


def read_blocks(blocks: Mapping[str, Any], plugins: tuple[str, ...], norm_place: str, place: str) -> dict[str, Named]:
    """The blocks of a model's mapping, `like` resolved. norm_place: the model's. Raises ConfigError (place: of `blocks`)."""
    return {str(name): _read(blocks, name, plugins, norm_place, place) for name in blocks}


def block_mapping(block: Named) -> dict[str, Any]:
    """A block as YAML would hold it: its type and every key, no `like`."""
    return {"type": block.type} | {key: getattr(block, key) for key in USES} | plain(asdict(block.config))


def counted(block: Named, name: str, uses: int) -> Named:
    """The block where the pattern uses it so often, if its weights are shared. Raises ConfigError."""
    if not block.share or uses == 0:
        return block
    try:
        return replace(block, config=block.config.shared(uses))
    except ConfigError as error:
        raise error.within(f"blocks.{name}") from None


def with_value(blocks: Mapping[str, Named], name: str, key: str, value: Any) -> dict[str, Named]:
    """The blocks with one key of a block's config changed, in the block and in all that are like it and don't give the key themselves.

    Raises ConfigError where the config refuses the value."""
    changed = {
        other: replace(blocks[other], config=replace(blocks[other].config, **{key: value})) for other in _followers(blocks, name, key)
    }
    own = replace(changed[name], changes=changed[name].changes | {key})
    return {**blocks, **changed, name: own}


def _followers(blocks: Mapping[str, Named], name: str, key: str) -> list[str]:
    """The block and those whose `key` is the block's."""
    direct = [other for other, block in blocks.items() if block.like == name and key not in block.changes]
    return [name, *(follower for other in direct for follower in _followers(blocks, other, key))]


def _read(blocks: Mapping[str, Any], name: str, plugins: tuple[str, ...], norm_place: str, root: str) -> Named:
    values, place = _inherited(blocks, name, (), root), join(root, str(name))
    type_name = values.get("type")
    if not isinstance(type_name, str):
        raise ConfigError(
            place, None, "needs a type (or like: another block)", "for example {type: gqa, n_heads: 4}; `zoo list blocks` names them"
        )
    try:
        cls = config_class(type_name, plugins)
    except ConfigError as error:
        raise error.within(place) from None
    use = parse(Use, {key: value for key, value in values.items() if key in USES}, place)
    own = {key: value for key, value in values.items() if key != "type" and key not in USES}
    check_keys(own, [f.name for f in fields(cls)], place, what=type_name)
    uses = vars(use) | {"norm_place": use.norm_place or norm_place}
    written = blocks[name]
    like = str(written["like"]) if "like" in written else None
    return Named(type=type_name, config=parse(cls, own, place), like=like, changes=frozenset(written) - {"like"}, **uses)


def _inherited(blocks: Mapping[str, Any], name: str, seen: tuple[str, ...], root: str) -> dict[str, Any]:
    """The keys of a block and those that it has from the block that it is like."""
    place = join(root, str(name))
    if name in seen:
        raise ConfigError(f"{join(root, seen[0])}.like", None, f"goes in a circle: {' -> '.join([*seen, name])}")
    values = blocks[name]
    if not isinstance(values, Mapping):
        raise ConfigError(place, values, "must be a mapping with a type", "for example {type: gqa, n_heads: 4}")
    if "like" not in values:
        return dict(values)
    base = values["like"]
    if base not in blocks:
        raise ConfigError(f"{place}.like", base, "there is no such block", f"Blocks: {', '.join(b for b in blocks if b != name)}")
    if "type" in values:
        raise ConfigError(f"{place}.type", values["type"], "a block has a type or is like another, not both")
    base_values = _inherited(blocks, str(base), (*seen, name), root)
    return {**base_values, **{key: value for key, value in values.items() if key != "like"}}
