"""Whole blocks on the back ends of mamba-ssm and causal-conv1d: output, states and the gradient of every parameter as in the reference."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from blocks import mamba1, mamba2
from blocks.context import advance
from kernels import backend
from tests.kernels.library_backends import TOLERANCE, assert_same
from tests.oracle import moved

D, BATCH, PROMPT, LENGTH = 16, 2, 9, 11
LIBRARIES = {"mamba_ssm": "mamba_ssm.ops.selective_scan_interface", "causal_conv1d": "causal_conv1d"}
CONFIGS = {
    "mamba1": mamba1.Config(d_state=4),
    "mamba2": mamba2.Config(d_state=5, head_dim=4, n_groups=2, conv=3),  # 52 channels of the convolution: 8 don't divide them
    "mamba2 of 64": mamba2.Config(d_state=8, head_dim=4, n_groups=2),
}
CASES = [
    ("mamba1", "mamba_ssm"),
    ("mamba1", "causal_conv1d"),
    ("mamba2 of 64", "causal_conv1d"),
    ("mamba2", "mamba_ssm"),
]


def run(block: nn.Module, u: Tensor, backend_name: str) -> list[Tensor]:
    """A padded and packed prompt with its gradients, then two single tokens without."""
    padding = torch.zeros(BATCH, PROMPT, dtype=torch.bool, device=u.device)
    padding[1, :2] = True
    documents = (torch.arange(PROMPT, device=u.device) >= 4).long().expand(BATCH, -1)
    ctx, cursor = advance(None, BATCH, PROMPT, documents=documents, padding=padding, device=u.device)
    with backend(backend_name):
        y, state = block(u[:, :PROMPT], None, ctx)
        y = y.masked_fill(padding[..., None], 0)
        loss = y.square().sum() + sum(x.square().sum() for x in tree_leaves(state) if isinstance(x, Tensor))
        grads = torch.autograd.grad(loss, list(block.parameters()))
        out = [y]
        with torch.no_grad():
            for i in range(PROMPT, LENGTH):
                ctx, cursor = advance(cursor, BATCH, 1, device=u.device)
                y, state = block(u[:, i : i + 1], state, ctx)
                out.append(y)
    return [torch.cat(out, 1), *(x for x in tree_leaves(state) if isinstance(x, Tensor)), *grads]


@pytest.fixture
def place(device: str) -> Iterator[str]:
    """The device, with leave to multiply in TF32 if it is a GPU."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before if device == "cpu" else "high")
    yield device
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("name", "backend_name"), CASES)
def test_a_block_is_that_of_the_reference(name: str, backend_name: str, place: str) -> None:
    pytest.importorskip(LIBRARIES[backend_name])
    block = moved(CONFIGS[name].build(D), 0.1)
    u = torch.randn(BATCH, LENGTH, D)
    right = run(copy.deepcopy(block).double(), u.double(), "reference")
    assert_same(run(block.to(place), u.to(place), backend_name), right, TOLERANCE[place])
