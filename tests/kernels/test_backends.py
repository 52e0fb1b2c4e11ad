"""Who serves a call: named rooms, guests that refuse, `auto` that never looks at a guest on a CPU, observers."""

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

from kernels import BackendError, backend
from kernels.backends import LibraryBackend, edited, observed, serve


def twice(x: Tensor) -> Tensor:
    return 2 * x


def doubled(x: Tensor) -> Tensor:
    return x + x


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> LibraryBackend:
    """A room that serves one row and no more."""
    module = ModuleType("a_guest")
    module.twice = lambda x: x * 2.0
    module.refuses_twice = lambda x: "it has more than one row" if len(x) > 1 else None
    monkeypatch.setitem(sys.modules, "a_guest", module)
    return LibraryBackend("a_guest", "twice")


def served(rooms: dict, x: Tensor) -> str:
    names: list[str] = []
    with observed(lambda operation, name, *_: names.append(name)):
        serve("twice", rooms, x)
    return names[0]


def test_auto_takes_no_guest_on_a_cpu() -> None:
    rooms = {"triton": LibraryBackend("no.such.module", "twice"), "chunked": doubled, "reference": twice}
    assert served(rooms, torch.ones(1)) == "chunked"
    assert "no.such.module" not in sys.modules


def test_a_named_room_serves_or_says_why_not(guest: LibraryBackend) -> None:
    rooms = {"triton": guest, "chunked": doubled, "reference": twice}
    with backend("triton"):
        assert served(rooms, torch.ones(1)) == "triton"
        with pytest.raises(BackendError, match=r"twice: backend 'triton' can't serve this call: it has more than one row"):
            serve("twice", rooms, torch.ones(2))
    with backend("reference"):
        assert served(rooms, torch.ones(2)) == "reference"


def test_a_library_that_is_missing_is_a_reason() -> None:
    rooms = {"fla": LibraryBackend("no.such.module", "twice"), "reference": twice}
    with backend("fla"), pytest.raises(BackendError, match="can't be imported"):
        serve("twice", rooms, torch.ones(1))


def test_an_operation_without_the_room_chooses_by_itself() -> None:
    with backend("mamba_ssm"):
        assert served({"chunked": doubled, "reference": twice}, torch.ones(1)) == "chunked"


def test_the_choice_ends_with_its_with_also_after_an_error() -> None:
    rooms = {"chunked": doubled, "reference": twice}
    with pytest.raises(RuntimeError), backend("reference"), backend("chunked"):
        raise RuntimeError
    assert served(rooms, torch.ones(1)) == "chunked"
    with pytest.raises(BackendError, match="'chunkd' is not one of auto, reference, chunked"), backend("chunkd"):
        pass


def test_an_editor_replaces_results_inside_its_with() -> None:
    rooms = {"reference": twice}
    with edited(lambda operation, result: result + len(operation)):
        assert serve("four", rooms, torch.ones(1)).tolist() == [6.0]
        with edited(lambda operation, result: result * 0):
            assert serve("four", rooms, torch.ones(1)).tolist() == [0.0]
        assert serve("four", rooms, torch.ones(1)).tolist() == [6.0]
    assert serve("four", rooms, torch.ones(1)).tolist() == [2.0]
