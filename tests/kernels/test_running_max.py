"""The running maximum of a decayed recurrence: against the loop, with resets, states and gradients."""

import pytest
import torch
from torch import Tensor

from kernels.running_max import running_max

B, C = 2, 3


def loop(a: Tensor, x: Tensor, state: Tensor | None, start: float, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    m = torch.full_like(x[:, 0], start) if state is None else state
    before, after = [], []
    for t in range(x.shape[1]):
        m = m if reset is None else torch.where(reset[:, t, None], start, m)
        before.append(m)
        m = torch.maximum(a[:, t] + m, x[:, t])
        after.append(m)
    return torch.stack(before, 1), torch.stack(after, 1)


@pytest.mark.parametrize("length", [1, 2, 3, 17])
@pytest.mark.parametrize("start", [0.0, -1e30])
@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_the_loop(length: int, start: float, carried: bool, packed: bool) -> None:
    generator = torch.Generator().manual_seed(length)
    a, x, weight = (torch.randn(B, length, C, generator=generator, dtype=torch.float64) for _ in range(3))
    state = torch.randn(B, C, generator=generator, dtype=torch.float64) if carried else None
    reset = torch.rand(B, length, generator=generator) < 0.3 if packed else None
    inputs = [i.requires_grad_() for i in (-a.abs(), 2 * x, state) if i is not None]
    results = []
    for maximum in (lambda a, x, s: running_max(a, x, s, start=start, reset=reset), lambda a, x, s: loop(a, x, s, start, reset)):
        before, after = maximum(inputs[0], inputs[1], inputs[2] if carried else None)
        gradients = torch.autograd.grad(((before + 2 * after) * weight).sum(), inputs, allow_unused=True, materialize_grads=True)
        results.append([before, after, *gradients])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
