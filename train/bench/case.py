"""What a benchmark is: two ways to do one job, and how much faster ours has to be."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

Step = Callable[[], object]  # one timed run of the job


class Target(NamedTuple):
    """What a case is held to; None = it is only shown."""

    equal: float | None = None  # the peer's time over ours, the same settings on both sides, at least
    shipped: float | None = None  # the same, ours with the start-up settings of `zoo` beside the peer as its user gets it, at least
    share: float | None = None  # useful FLOPs a second over those of a large matrix product, at least
    limit: float | None = None  # ours over the peer's, at most: a guard rail


class Case(NamedTuple):
    """One comparison. `ours` and `theirs` build their inputs and return the step; both do the same work on equal sizes."""

    operation: str  # a word or two: "ssd", "sliding window"
    shape: str  # "B4 T1024 H8 P64 N128"
    peer: str  # what it stands beside, with the setting that matters
    ours: Callable[[], Step]
    theirs: Callable[[], Step]
    target: Target
    flops: int | None = None  # useful ones of a step, forward and backward
    note: str = ""  # what a reader has to know: a floor, a difference of scope

    @property
    def name(self) -> str:
        return f"{self.operation} {self.shape} / {self.peer}"


def training(function: Callable[..., Any], *inputs: Any) -> Step:
    """A step that runs `function(*inputs)` forward and backward to every input that asks for a gradient, from a fixed gradient of
    its output (of the first output, if there are several)."""
    leaves = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
    with torch.no_grad():
        cotangent = torch.randn_like(_first(function(*inputs)))

    def step() -> object:
        return torch.autograd.grad(_first(function(*inputs)), leaves, cotangent)

    return step


def module_training(module: torch.nn.Module, function: Callable[..., Any], *inputs: Any) -> Step:
    """As `training`, to the parameters of `module` as well."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    leaves = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
    with torch.no_grad():
        cotangent = torch.randn_like(_first(function(*inputs)))

    def step() -> object:
        return torch.autograd.grad(_first(function(*inputs)), [*leaves, *parameters], cotangent, allow_unused=True)

    return step


def inference(function: Callable[..., Any], *inputs: Any) -> Step:
    """A step that runs `function(*inputs)` without gradients."""

    def step() -> object:
        with torch.no_grad():
            return function(*inputs)

    return step


def leaf(*shape: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    """A random float32 input that asks for a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator)).requires_grad_()


def _first(result: Any) -> Tensor:
    return result[0] if isinstance(result, tuple) else result
