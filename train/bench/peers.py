"""The alternatives that we are measured beside, from the `bench` extra. Each is imported when it is first asked for."""

import importlib
import importlib.util
import sys
from importlib.metadata import PackageNotFoundError, distribution
from types import ModuleType

from blocks.errors import ConfigError

GPU_LIBRARIES = ("fla", "mamba_ssm", "causal_conv1d")


def hugging_face(module: str) -> ModuleType:
    """transformers.models.<module>, with its torch functions: it would bind GPU libraries at import without looking for a device."""
    for name in GPU_LIBRARIES:
        if name not in sys.modules:
            sys.modules[name] = None  # type: ignore[assignment]
    return _import(f"transformers.models.{module}", "transformers")


def mambapy(module: str) -> ModuleType:
    """mambapy.<module>."""
    return _import(f"mambapy.{module}", "mambapy")


def fla(path: str) -> ModuleType:
    """A naive file of flash-linear-attention (under fla/ops), loaded by itself: importing the package takes Triton and seconds."""
    try:
        file = distribution("fla-core").locate_file(f"fla/ops/{path}")
    except PackageNotFoundError as error:
        raise _missing("fla-core") from error
    spec = importlib.util.spec_from_file_location("fla_" + path.replace("/", "_")[:-3], str(file))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _import(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(package) from error


def _missing(package: str) -> ConfigError:
    return ConfigError("zoo bench", None, f"the peer {package} is not installed", "pip install 'zoo[bench]'")
