"""The peers of the attention benchmarks compute what we compute, gradients included."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from kernels.attention import attention, differential
from kernels.core_context import core_context
from kernels.landmark import landmark
from train.bench.cases import attention as family

T = 320
INDEX = torch.arange(T)
BAND = (INDEX[:, None] >= INDEX) & (INDEX[:, None] - family.WINDOW < INDEX)
Job = tuple[Callable[..., Tensor], Callable[..., Tensor], list[Tensor]]


def jobs() -> dict[str, Job]:
    """Ours, the peer, and the arguments of both."""
    near = {"group": family.GROUP, "local": 64}
    ours, theirs = partial(core_context, **near), partial(family.dense_core_context, **near)
    return {
        "window": (partial(attention, window=family.WINDOW), partial(family.sdpa, mask=BAND), family.qkv(1, T)),
        "dense": (attention, partial(family.sdpa, mask=None), family.qkv(1, T)),
        "two calls": (differential, family.two_sdpa, family.differential_leaves(1, T)),
        "written out": (differential, family.written_out, family.differential_leaves(1, T)),
        "landmark": (landmark, family.dense_landmark, [*family.qkv(1, T), family.landmark_marks(1, T)]),
        "core context": (ours, theirs, [*family.core_context_leaves(1, T), INDEX[None]]),
    }


@pytest.mark.parametrize("name", jobs())
def test_both_sides_compute_the_same(name: str) -> None:
    ours, theirs, arguments = jobs()[name]
    leaves = [x for x in arguments if x.requires_grad]
    actual, expected = (results(function, arguments, leaves) for function in (ours, theirs))
    for a, b in zip(actual, expected, strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-5


def results(function: Callable[..., Tensor], arguments: list[Tensor], leaves: list[Tensor]) -> list[Tensor]:
    o = function(*arguments)
    cotangent = torch.randn(o.shape, generator=torch.Generator().manual_seed(1))
    return [o.detach(), *torch.autograd.grad(o, leaves, cotangent)]


def test_cases_have_names_of_their_own() -> None:
    names = [case.name for case in family.cases()]
    assert len(set(names)) == len(names)
