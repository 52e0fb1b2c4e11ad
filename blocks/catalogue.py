"""`type:` -> Config. A file in blocks/ is found by its name; a user's own block by its dotted path, if `plugins:` allows it."""

import importlib
import pkgutil
from difflib import get_close_matches
from functools import cache

import blocks
from blocks.base import Config
from blocks.errors import ConfigError

NOT_BLOCKS = ("base", "catalogue", "context", "errors", "forgetting", "keys", "parts", "qkv", "rope", "state")


@cache
def block_types() -> tuple[str, ...]:
    """The types of the blocks in this folder, sorted."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(blocks.__path__) if m.name not in NOT_BLOCKS))


def config_class(type_name: str, plugins: tuple[str, ...] = ()) -> type[Config]:
    """The Config of `type:`. A dotted name `package.module.Class` is imported only if `package` is listed in plugins."""
    if "." in type_name:
        return _plugin(type_name, plugins)
    types = block_types()
    if type_name not in types:
        near = get_close_matches(type_name, types, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError("type", type_name, "no such block", f"{hint}Types: {', '.join(types)}")
    return importlib.import_module(f"blocks.{type_name}").Config


def _plugin(type_name: str, plugins: tuple[str, ...]) -> type[Config]:
    package, (module, _, name) = type_name.split(".")[0], type_name.rpartition(".")
    if package not in plugins:
        raise ConfigError("type", type_name, "a plugin's package must be allowed by name", f"add it: plugins: [{package}]")
    try:
        config = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise ConfigError("type", type_name, f"can't be imported: {error}", "is its folder on PYTHONPATH?") from error
    except AttributeError as error:
        raise ConfigError("type", type_name, f"module {module} has no {name}", "it must be a subclass of blocks.base.Config") from error
    if not (isinstance(config, type) and issubclass(config, Config)):
        raise ConfigError("type", type_name, "is not a block", "it must be a subclass of blocks.base.Config")
    return config
