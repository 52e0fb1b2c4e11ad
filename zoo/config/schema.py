"""YAML -> frozen dataclasses, strictly: unknown keys, wrong types and missing values are errors that name place and remedy."""

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from blocks.errors import ConfigError

T = TypeVar("T")


class Prepared:
    """A dataclass that reads its mapping in another form first: `parse` calls `prepare` before it reads the fields."""

    @classmethod
    def prepare(cls, values: Any, place: str) -> Any:
        """The mapping of the fields. A value may be an instance of its field's dataclass already. Raises ConfigError (full place)."""
        return values


def load_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file as a plain mapping, interpolations resolved. Executes nothing."""
    path = Path(path)
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except FileNotFoundError:
        raise ConfigError(str(path), None, "there is no such file") from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), None, f"can't be read as a YAML file: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(str(path), None, f"is not valid YAML: {' '.join(str(error).split())}") from None
    except OmegaConfBaseException as error:
        raise ConfigError(str(path), None, f"an interpolation can't be resolved: {str(error).splitlines()[0]}") from None
    if not isinstance(loaded, dict):
        raise ConfigError(str(path), None, "must be a mapping of keys to values")
    return typing.cast(dict[str, Any], loaded)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `over` laid on top, mappings merged key by key."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": 1, "a": {"c": 2}} -> {"a": {"b": 1, "c": 2}}."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        inner = nested(value) if isinstance(value, Mapping) else value
        for part in reversed(str(key).split(".")):
            inner = {part: inner}
        out = merge(out, inner)
    return out


def dotted(assignments: list[str]) -> dict[str, Any]:
    """`["a.b=1", "c=x"]` -> {"a": {"b": 1}, "c": "x"}, values read as YAML."""
    out: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise ConfigError(text, None, "an override is written key=value, as in d_model=64 or blocks.M.d_state=32")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(key, value, "the value is not valid YAML") from None
        nested: Any = parsed
        for part in reversed(key.split(".")):
            nested = {part: nested}
        out = merge(out, nested)
    return out


def plain(value: Any) -> Any:
    """Mappings, lists and scalars only."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def parse(cls: type[T], values: Any, place: str = "") -> T:
    """An instance of the dataclass `cls` from a mapping. Raises ConfigError with the full key's place."""
    if isinstance(values, Mapping):
        check_keys(values, _names(cls), place, what=_what(cls))
    if issubclass(cls, Prepared):
        values = cls.prepare(values, place)
    if not isinstance(values, Mapping):
        raise ConfigError(place or "configuration", values, f"must be a mapping with the keys {', '.join(_names(cls))}")
    hints = _hints(cls)  # type: ignore[arg-type]
    ready = {key: _field(hints[key], value, join(place, key)) for key, value in values.items()}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if no_default and field.name not in ready:
            raise ConfigError(join(place, field.name), None, f"is missing: {_what(cls)} needs it")
    try:
        return cls(**ready)
    except ConfigError as error:  # what the dataclass itself refuses: its own field's name is the place
        raise error.within(place) if place else error from None


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def check_keys(values: Mapping[Any, Any], allowed: list[str], place: str, what: str) -> None:
    """Raise ConfigError for the first key that is not allowed, with the nearest right spelling."""
    for key in values:
        if key not in allowed:
            near = get_close_matches(str(key), allowed, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(join(place, str(key)), None, f"{what} has no such key", f"{hint}Keys: {', '.join(allowed)}")


def _field(hint: Any, value: Any, place: str) -> Any:
    """One value converted to its field's type: dataclasses and mappings of them by `parse`, the rest by plain type checks."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    for option in options:
        if dataclasses.is_dataclass(option):
            return _instance(typing.cast(type[Any], option), value, place, hint)
        if (inner := _dataclass_of_values(option)) is not None and isinstance(value, Mapping):
            return {str(key): _instance(inner, item, join(place, str(key)), inner) for key, item in value.items()}
    for option in options if value is not None else ():
        converted = _WRONG if option is type(None) else _convert(option, value)
        if converted is not _WRONG:
            return converted
    raise ConfigError(place, value, f"must be {_type_name(hint)}")


def _instance(cls: type[T], value: Any, place: str, hint: Any) -> T:
    """`value` as an instance of the dataclass `cls`, which it may be already."""
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping) and not issubclass(cls, Prepared):
        raise ConfigError(place, value, f"must be {_type_name(hint)}")
    return parse(cls, value, place)


def _dataclass_of_values(hint: Any) -> type[Any] | None:
    """Of dict[str, C] the dataclass C; None: it is no such hint."""
    args = typing.get_args(hint)
    held = typing.get_origin(hint) is dict and dataclasses.is_dataclass(args[1])
    return typing.cast(type[Any], args[1]) if held else None


_WRONG = object()


def _convert(hint: Any, value: Any) -> Any:
    origin = typing.get_origin(hint)
    if origin in (tuple, list) or hint in (tuple, list):
        return _sequence(hint, value)
    if origin is dict or hint is dict:
        return dict(value) if isinstance(value, Mapping) else _WRONG
    if hint is Any:
        return value
    if isinstance(value, bool) != (hint is bool) or isinstance(value, (Mapping, list, tuple)):
        return _WRONG  # OmegaConf would read True as 1 and "yes" as True
    if (hint is int and isinstance(value, (float, str))) or (hint is str and not isinstance(value, str)):
        return int(value) if isinstance(value, float) and value.is_integer() else _WRONG
    if hint is float and isinstance(value, str):  # YAML reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            return _WRONG
    return hint(value)


def _sequence(hint: Any, value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        return _WRONG
    args = typing.get_args(hint)
    if not args:
        return tuple(value)
    kinds = [args[0]] * len(value) if len(args) == 1 or args[-1] is Ellipsis else list(args)
    if len(kinds) != len(value):
        return _WRONG
    items = [_convert(kind, item) for kind, item in zip(kinds, value, strict=True)]
    return _WRONG if _WRONG in items else (tuple(items) if typing.get_origin(hint) is tuple else items)


def _names(cls: type) -> list[str]:
    return [f.name for f in dataclasses.fields(cls) if f.init]


def _what(cls: type) -> str:
    module = cls.__module__.rpartition(".")[2]
    return module if cls.__name__ == "Config" else cls.__name__


def _type_name(hint: Any) -> str:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    return " or ".join(words.get(o, _plain_name(o)) for o in options)


def _plain_name(hint: Any) -> str:
    if dataclasses.is_dataclass(hint):
        return "a mapping with the keys " + ", ".join(_names(typing.cast(type, hint)))
    origin = typing.get_origin(hint)
    if origin is dict or hint is dict:
        return "a mapping"
    if origin in (tuple, list):
        inner = [a for a in typing.get_args(hint) if a is not Ellipsis]
        return "a list of " + " and ".join(dict.fromkeys(_type_name(a) for a in inner))
    return getattr(hint, "__name__", str(hint))


def join(place: str, key: str) -> str:
    """The dotted place of a key inside `place`; "" is the top."""
    return f"{place}.{key}" if place else key
