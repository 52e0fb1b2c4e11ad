"""Which back end serves a call: one asked for by name, one that refuses, `auto` without a library on a CPU; observers and editors."""

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

import kernels
from kernels import BackendError
from kernels.backends import LibraryBackend, edited, observed, serve


def twice(x: Tensor) -> Tensor:
    return 2 * x


def doubled(x: Tensor) -> Tensor:
    return x + x


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> LibraryBackend:
    """A back end that serves one row and no more."""
    module = ModuleType("a_library")
    module.twice = lambda x: x * 2.0
    module.refuses_twice = lambda x: "it has more than one row" if len(x) > 1 else None
    monkeypatch.setitem(sys.modules, "a_library", module)
    return LibraryBackend("a_library", "twice")


def served(backends: dict, x: Tensor) -> str:
    names: list[str] = []
    with observed(lambda operation, name, *_: names.append(name)):
        serve("twice", backends, x)
    return names[0]


def test_auto_takes_no_library_on_a_cpu() -> None:
    backends = {"triton": LibraryBackend("no.such.module", "twice"), "chunked": doubled, "reference": twice}
    assert served(backends, torch.ones(1)) == "chunked"
    assert "no.such.module" not in sys.modules


def test_a_named_backend_serves_or_says_why_not(library: LibraryBackend) -> None:
    backends = {"triton": library, "chunked": doubled, "reference": twice}
    with kernels.backend("triton"):
        assert served(backends, torch.ones(1)) == "triton"
        with pytest.raises(BackendError, match=r"twice: backend 'triton' can't serve this call: it has more than one row"):
            serve("twice", backends, torch.ones(2))
    with kernels.backend("reference"):
        assert served(backends, torch.ones(2)) == "reference"


def test_a_library_that_is_missing_is_a_reason() -> None:
    backends = {"fla": LibraryBackend("no.such.module", "twice"), "reference": twice}
    with kernels.backend("fla"), pytest.raises(BackendError, match="can't be imported"):
        serve("twice", backends, torch.ones(1))


def test_an_operation_without_the_backend_chooses_by_itself() -> None:
    with kernels.backend("mamba_ssm"):
        assert served({"chunked": doubled, "reference": twice}, torch.ones(1)) == "chunked"


def test_the_choice_ends_with_its_with_also_after_an_error() -> None:
    backends = {"chunked": doubled, "reference": twice}
    with pytest.raises(RuntimeError), kernels.backend("reference"), kernels.backend("chunked"):
        raise RuntimeError
    assert served(backends, torch.ones(1)) == "chunked"
    with pytest.raises(BackendError, match="'chunkd' is not one of auto, reference, chunked"), kernels.backend("chunkd"):
        pass


def test_an_editor_replaces_results_inside_its_with() -> None:
    backends = {"reference": twice}
    with edited(lambda operation, result: result + len(operation)):
        assert serve("four", backends, torch.ones(1)).tolist() == [6.0]
        with edited(lambda operation, result: result * 0):
            assert serve("four", backends, torch.ones(1)).tolist() == [0.0]
        assert serve("four", backends, torch.ones(1)).tolist() == [6.0]
    assert serve("four", backends, torch.ones(1)).tolist() == [2.0]
