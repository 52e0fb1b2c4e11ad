"""A mixer beside another implementation of it with the same weights: values, gradients, states, and going on from a state."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from blocks.context import advance
from kernels import backend
from tests.oracle import error, moved

TOLERANCE = 1e-5


def share_weights(hf: nn.Module, block: nn.Module, renamed: dict[str, str]) -> dict[str, str]:
    """Random weights of the mixer, copied into the block. renamed: parts of names, the block's to the mixer's. Returns the map of names."""
    weights = dict(moved(hf).named_parameters())
    names = {name: name for name, _ in block.named_parameters()}
    for part, other in renamed.items():
        names = {name: target.replace(part, other) for name, target in names.items()}
    assert set(names.values()) == set(weights)
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            parameter.copy_(weights[names[name]].view_as(parameter))
    return names


def check_values_and_gradients(hf: nn.Module, block: nn.Module, names: dict[str, str], x: Tensor, backend_name: str) -> Any:
    """Of the outputs for x (b, t, d), by x and by every weight. Returns the block's state after x."""
    weight = torch.randn_like(x)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    expected = hf(inputs[0])
    (expected * weight).sum().backward()
    with backend(backend_name):
        y, state = block(inputs[1], None, advance(None, *x.shape[:2])[0])
    (y * weight).sum().backward()
    assert error(y, expected) < TOLERANCE
    assert error(inputs[1].grad, inputs[0].grad) < TOLERANCE
    weights = dict(hf.named_parameters())
    for name, parameter in block.named_parameters():
        grad = weights[names[name]].grad
        assert grad is not None
        assert error(parameter.grad, grad.view_as(parameter)) < TOLERANCE, name
    return state


def check_same(reference: Callable[[Tensor], Tensor], block: nn.Module, x: Tensor, backend_name: str) -> None:
    """The outputs for x (b, t, d), the gradients by x and by the block's weights, which `reference` uses too."""
    weight, results = torch.randn_like(x), []
    for run in (reference, lambda leaf: block(leaf, None, advance(None, *x.shape[:2])[0])[0]):
        leaf = x.clone().requires_grad_()
        with backend(backend_name):
            y = run(leaf)
        results.append([y, *torch.autograd.grad((y * weight).sum(), [leaf, *block.parameters()])])
    for expected, tensor in zip(*results, strict=True):
        assert error(tensor, expected) < TOLERANCE


@torch.no_grad()
def check_going_on(hf: nn.Module, block: nn.Module, cache: Any, x: Tensor, later: Tensor) -> None:
    """The outputs for later (b, n, d) after x (b, t, d), from the block's state and from the mixer's cache."""
    hf(x, cache_params=cache)
    expected = hf(later, cache_params=cache)
    ctx, cursor = advance(None, *x.shape[:2])
    _, state = block(x, None, ctx)
    y, _ = block(later, state, advance(cursor, *later.shape[:2])[0])
    assert error(y, expected) < TOLERANCE
