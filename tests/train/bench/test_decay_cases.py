"""Both sides of the decay cases compute the same numbers, forward and backward."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from blocks.context import Context
from kernels import decay
from train.bench.cases import decay as cases


def assert_same(ours: Callable[..., Any], theirs: Callable[..., Any], given: tuple[Tensor | None, ...]) -> None:
    leaves = [x for x in given if x is not None and x.requires_grad]
    results = []
    for function in (ours, theirs):
        o = function(*given)
        o = o[0] if isinstance(o, tuple) else o
        results.append((o, *torch.autograd.grad((o * o.detach().cos()).sum(), leaves)))
    for a, b in zip(*results, strict=True):
        assert (a - b).norm() / b.norm() < 1e-4


@pytest.mark.parametrize(
    ("gate", "theirs"),
    [("none", cases.fla_linear), ("scalar", cases.fla_simple), ("fixed", cases.fla_simple), ("vector", cases.fla_gla)],
)
def test_fla(gate: str, theirs: Callable[..., Any]) -> None:
    pytest.importorskip("einops")
    assert_same(decay.decay, theirs, cases.inputs(gate, 64))


def test_hugging_face_scan() -> None:
    pytest.importorskip("transformers")
    assert_same(cases.ssd, cases.hugging_face_ssd, cases.ssd_inputs(64))


def test_hugging_face_mixer() -> None:
    pytest.importorskip("transformers")
    ours, theirs = cases.layers()
    x = torch.randn(2, 40, cases.D_MODEL, requires_grad=True)
    assert_same(lambda x: ours(x, None, Context(torch.arange(40).expand(2, -1))), theirs, (x,))
