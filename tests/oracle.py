"""Independent implementations that blocks are held to, and how far from them counts as the same."""

import importlib.util
from importlib.metadata import PackageNotFoundError, distribution
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn


def fla(path: str) -> ModuleType:
    """A naive file of flash-linear-attention (under fla/ops), loaded by itself: the package needs a GPU to be imported."""
    try:
        file = distribution("fla-core").locate_file(f"fla/ops/{path}")
    except PackageNotFoundError:
        pytest.skip("fla-core is not installed")
    spec = importlib.util.spec_from_file_location("fla_" + path.replace("/", "_")[:-3], str(file))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def error(a: Tensor | None, b: Tensor | None) -> float:
    """The largest difference over the largest value of b."""
    assert a is not None
    assert b is not None
    assert a.shape == b.shape
    return float((a - b).detach().abs().max() / b.detach().abs().max())


def moved(module: nn.Module, by: float = 0.3) -> nn.Module:
    """The module with every parameter moved at random, so that no constant hides what it multiplies."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return module
