"""The cases of the delta rule and of the scans: what stands beside ours computes the same numbers."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from blocks.context import Context
from kernels import delta
from tests.oracle import error
from train.bench.cases import delta as delta_cases
from train.bench.cases import scan as scan_cases

pytest.importorskip("transformers")
pytest.importorskip("mambapy")


@pytest.mark.parametrize(
    ("gate", "function"),
    [("scalar", delta_cases.hugging_face_gated), ("scalar", delta_cases.fla_gated), ("dplr", delta_cases.fla_dplr)],
)
def test_peers_of_the_delta_rule_compute_the_same(gate: str, function: Callable[..., Tensor]) -> None:
    given = delta_cases.inputs(gate, 64)
    ours = delta.dplr if gate == "dplr" else delta.delta
    assert error(function(**given), ours(**given)[0]) < 1e-5


def test_the_mamba_layer_of_mambapy_computes_the_same() -> None:
    ours, theirs = scan_cases.layers()
    x = torch.randn(2, 20, scan_cases.D)
    y, _ = ours(x, None, Context(positions=torch.arange(20).expand(2, 20)))
    assert error(theirs(x), y) < 1e-5
