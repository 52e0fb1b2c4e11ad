"""The back ends of flash-linear-attention against the references, on a GPU or under Triton's interpreter; what they refuse."""

import ast
import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses import FakeTensorMode

import kernels
from kernels import BackendError, decay, delta, linear_scan
from kernels.backends import LibraryBackend
from kernels.decay import reference as decay_reference
from kernels.flash_linear_attention import SHORT, by_documents
from kernels.gpu import needs_tf32
from tests.kernels.library_backends import TOLERANCE, Operation, assert_same, compare, results

pytestmark = pytest.mark.filterwarnings("ignore:ChunkDeltaRuleFunction does not support float32:RuntimeWarning")
slow = pytest.mark.slow
STRONG = 1e-4  # the kernels subtract sums of log decays over a chunk
B, H, K, V = 2, 2, 16, 24


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def unit(t: int) -> Tensor:
    """Correlated keys of length 1."""
    return F.normalize(rand(B, t, H, K) + 0.5, dim=-1)


def log_decays(strong: bool, *shape: int) -> Tensor:
    """Strong ones are a mix of steps near 0 and steps that forget everything."""
    mild = -rand(*shape).abs()
    return mild * torch.where(torch.rand_like(mild) < 0.3, 60.0, 0.02) if strong else 0.2 * mild


def gates(kind: str, t: int, strong: bool) -> Tensor | None:
    return None if kind == "none" else log_decays(strong, B, t, H, *[K] * (kind == "vector"))


def decay_inputs(kind: str, bonus: bool) -> Callable[[int, bool], list[Tensor | None]]:
    """q, k, v, g, state, bonus: one group of keys for all heads."""

    def make(t: int, strong: bool) -> list[Tensor | None]:
        factors = rand(B, t, 1, K), rand(B, t, 1, K) + 1, rand(B, t, H, V)
        return [*factors, gates(kind, t, strong), rand(B, H, K, V), rand(H, K) if bonus else None]

    return make


def shared_inputs(t: int, strong: bool) -> list[Tensor | None]:
    """q, k, v, g, state, no bonus: three queries read each head's memory."""
    return [rand(B, t, 3 * H, K), rand(B, t, H, K) + 1, rand(B, t, H, V), gates("scalar", t, strong), rand(B, H, K, V), None]


def delta_inputs(kind: str) -> Callable[[int, bool], list[Tensor | None]]:
    """q, k, v, g, beta, state."""

    def make(t: int, strong: bool) -> list[Tensor | None]:
        beta = 2 * torch.rand(B, t, H, dtype=torch.float64)
        return [rand(B, t, H, K), unit(t), rand(B, t, H, V), gates(kind, t, strong), beta, rand(B, H, K, V)]

    return make


def dplr_inputs(t: int, strong: bool) -> list[Tensor | None]:
    """q, w, k, v, a, b, state."""
    kappa, rate = unit(t), torch.rand(B, t, H, K, dtype=torch.float64)
    reads = [rand(B, t, H, K), log_decays(strong, B, t, H, K), rand(B, t, H, K), rand(B, t, H, V)]
    return [*reads, -kappa, kappa * rate, rand(B, H, K, V)]


def scan_inputs(t: int, strong: bool) -> list[Tensor | None]:
    """a, x, state."""
    return [log_decays(strong, B, t, 40), rand(B, t, 40), rand(B, 40)]


class Case(NamedTuple):
    operation: str
    folder: str
    make: Callable[[int, bool], list[Tensor | None]]  # the inputs of a length, with strong decays or not
    start: int  # where among them the state is
    chunk: int = 64
    slowly: bool = False  # one program of the interpreter for each token

    def backend(self, name: str) -> Operation:
        """Of a bonus that is an argument like the others."""
        function = getattr(importlib.import_module(f"kernels.{self.folder}.{name}"), self.operation)
        return function if self.operation != "decay" else lambda *args, **options: function(*args[:5], bonus=args[5], **options)


CASES = {
    "decay": Case("decay", "decay", decay_inputs("none", False), 4),
    "decay scalar": Case("decay", "decay", decay_inputs("scalar", False), 4),
    "decay vector": Case("decay", "decay", decay_inputs("vector", False), 4),
    "decay bonus": Case("decay", "decay", decay_inputs("none", True), 4),
    "decay scalar bonus": Case("decay", "decay", decay_inputs("scalar", True), 4),
    "decay vector bonus": Case("decay", "decay", decay_inputs("vector", True), 4),
    "decay shared": Case("decay", "decay", shared_inputs, 4),
    "delta": Case("delta", "delta", delta_inputs("none"), 5),
    "delta scalar": Case("delta", "delta", delta_inputs("scalar"), 5),
    "delta vector": Case("delta", "delta", delta_inputs("vector"), 5, slowly=True),
    "dplr": Case("dplr", "delta", dplr_inputs, 6, chunk=16),
    "linear_scan": Case("linear_scan", "linear_scan", scan_inputs, 2, chunk=16),
}
EXPANDED = ("decay bonus", "decay scalar bonus")  # to the gates of "decay vector bonus"
COSTLY = ("decay vector", "decay vector bonus", "delta vector")  # seconds and more
KERNELS = [pytest.param(name, marks=slow) if name in COSTLY else name for name in CASES if name not in EXPANDED]
OPERATIONS = {"decay": decay.BACKENDS, "delta": delta.DELTA, "dplr": delta.DPLR, "linear_scan": linear_scan.LINEAR}


@contextmanager
def tf32_allowed() -> Iterator[None]:
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.fixture
def library(device: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """The library, which warns of a machine without a GPU."""
    if device == "cuda" and request.node.callspec.params.get("name") == "dplr" and request.node.originalname != "test_in_bfloat16":
        pytest.skip("float32 is refused")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("fla.ops")
    with tf32_allowed():
        yield


def resets(t: int) -> Tensor:
    """Row 0 has documents inside chunks and at their first and last tokens, row 1 one at its first token."""
    reset = torch.zeros(B, t, dtype=torch.bool)
    reset[0, [i for i in (3, 15, 16, 64) if i < t]] = True
    reset[1, 0] = True
    return reset


def held_to_reference(name: str, t: int, device: str, *, strong: bool, packed: bool) -> None:
    case = CASES[name]
    tolerance = max(TOLERANCE[device], STRONG) if strong else None
    given = case.make(t, strong)
    if device == "cuda":
        skip_where_triton_miscompiles(case, given)
    compare(case.backend("fla"), case.backend("reference"), given, device, tolerance, reset=resets(t) if packed else None)


def skip_where_triton_miscompiles(case: Case, given: list[Tensor | None]) -> None:
    """The one refusal that depends on the machine."""
    moved = [None if x is None else x.to("cuda", torch.float32).requires_grad_() for x in given]
    options = {"bonus": moved.pop()} if case.operation == "decay" else {}
    why = OPERATIONS[case.operation]["fla"].refuses(*moved, **options)
    if why is not None and "Triton" in why:
        pytest.skip(why)


QUICK = [(name, 20 if case.slowly else case.chunk + 6) for name, case in CASES.items() if name not in EXPANDED]
LONG = [(name, case.chunk + i) for name, case in CASES.items() for i in (1 - case.chunk, -1, 0, 1, case.chunk + 2)]


@pytest.mark.parametrize(("name", "t"), QUICK)
def test_is_the_definition(name: str, t: int, library: None, device: str) -> None:
    held_to_reference(name, t, device, strong=False, packed=False)


@slow
@pytest.mark.parametrize("packed", [False, True], ids=["one", "packed"])
@pytest.mark.parametrize(("name", "t"), LONG)
def test_is_the_definition_at_any_length(name: str, t: int, packed: bool, library: None, device: str) -> None:
    held_to_reference(name, t, device, strong=t == 1, packed=packed)


@pytest.mark.parametrize("name", KERNELS)
def test_strong_decays(name: str, library: None, device: str) -> None:
    held_to_reference(name, CASES[name].chunk + 6, device, strong=True, packed=True)


@pytest.mark.parametrize("packed", [pytest.param(False, marks=slow), True], ids=["one", "packed"])
@pytest.mark.parametrize("name", CASES)
def test_without_a_start_state(name: str, packed: bool, library: None, device: str) -> None:
    case, t = CASES[name], 5
    given = case.make(t, False)
    given[case.start] = None
    compare(case.backend("fla"), case.backend("reference"), given, device, reset=resets(t) if packed else None)


@pytest.mark.parametrize("name", KERNELS)
def test_in_bfloat16(name: str, library: None, device: str) -> None:
    case = CASES[name]
    given = [None if x is None else x.bfloat16() for x in case.make(SHORT + 4, False)]
    right = results(case.backend("reference"), [None if x is None else x.double() for x in given])
    got = results(case.backend("fla"), given, device=device, dtype=torch.bfloat16)
    assert got[1].dtype == torch.float32
    assert_same(got, right, 3e-2)


@pytest.mark.parametrize("name", CASES)
def test_goes_on_token_by_token(name: str, library: None, device: str) -> None:
    case, t = CASES[name], 8
    given, reset = case.make(t, False), resets(t)
    right = case.backend("reference")(*given, reset=reset)
    low = [None if x is None else x.to(device, torch.float32) for x in given]
    along = [x is not None and x.ndim > 1 and x.shape[:2] == (B, t) for x in low]
    out, backend = [], case.backend("fla")
    for i in range(t):
        now = [x[:, i : i + 1] if moves and x is not None else x for x, moves in zip(low, along, strict=True)]
        o, low[case.start] = backend(*now, reset=reset[:, i : i + 1].to(device))
        out.append(o)
    assert_same([torch.cat(out, 1), low[case.start]], right, TOLERANCE[device])  # type: ignore[list-item]


@pytest.mark.parametrize("name", ["decay scalar", "delta scalar", "dplr", "linear_scan"])
def test_reads_views_and_trains_the_state_alone(name: str, library: None, device: str) -> None:
    case, t = CASES[name], SHORT + 1
    given = case.make(t, False)
    given[1] = given[1].transpose(0, 1).contiguous().transpose(0, 1)  # type: ignore[union-attr]

    def gradient(backend: Operation, where: str, dtype: torch.dtype) -> Tensor:
        moved = [None if x is None else x.to(where, dtype) for x in given]
        start = moved[case.start].requires_grad_()  # type: ignore[union-attr]
        _, final = backend(*moved)
        return torch.autograd.grad(final.square().sum(), start)[0]

    right = gradient(case.backend("reference"), "cpu", torch.float64)
    assert_same([gradient(case.backend("fla"), device, torch.float32)], [right], TOLERANCE[device])


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("linear_scan", *EXPANDED)])
@pytest.mark.parametrize("t", [1, SHORT + 1])
def test_a_token_of_nothing_leaves_the_state(name: str, t: int, library: None, device: str) -> None:
    case = CASES[name]
    given = [None if x is None else x.to(device, torch.float32) for x in case.make(t, False)]
    nothing = {"decay": (1, 3), "delta": (1, 3), "dplr": (1, 2, 4, 5)}[case.operation]
    for i in nothing:
        given[i] = None if given[i] is None else torch.zeros_like(given[i])  # type: ignore[arg-type]
    _, final = case.backend("fla")(*given)
    assert torch.equal(final, given[case.start])


def test_wide_keys_of_a_scalar_gate(library: None, device: str) -> None:
    given = [rand(1, 3, 1, 272), rand(1, 3, 1, 272), rand(1, 3, 1, 24), log_decays(False, 1, 3, 1), rand(1, 1, 272, 24), None]
    case = CASES["decay scalar"]
    compare(case.backend("fla"), case.backend("reference"), given, device)


def test_refuses(library: None, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def why(case: str, t: int, k: int = K, dtype: torch.dtype = torch.float32) -> str | None:
        inputs = [None if x is None else x.to(device, dtype) for x in CASES[case].make(t, False)]
        if case != "linear_scan":
            wide = [x is not None and x.shape[-1] == K for x in inputs]
            inputs = [x[..., :1].expand(*x.shape[:-1], k) if is_key else x for x, is_key in zip(inputs, wide, strict=True)]  # type: ignore[index,union-attr]
        leaves = [None if x is None else x.detach().requires_grad_() for x in inputs]
        options = {"bonus": leaves.pop()} if CASES[case].operation == "decay" else {}
        return OPERATIONS[CASES[case].operation]["fla"].refuses(*leaves, **options)  # type: ignore[attr-defined]

    for name in CASES:
        assert name == "dplr" or why(name, 3) is None
        assert "no kernels for float64" in (why(name, 3, dtype=torch.float64) or "")
    for name in ("decay vector bonus", "delta scalar", "dplr"):
        assert "even width from 16 on, not 8 and 24" in (why(name, 3, k=8) or "")
        assert "even width from 16 on, not 17 and 24" in (why(name, 3, k=17) or "")
        assert "wider than 256" in (why(name, 3, k=258) or "")
        with torch.no_grad():
            assert why(name, 1, k=255) is None
    assert why("decay scalar", 3, k=258) is None
    if device == "cpu":
        monkeypatch.delenv("TRITON_INTERPRET")
        assert "need a GPU" in (why("delta", 3) or "")


def test_by_name(library: None, device: str) -> None:
    given = [x.to(device, torch.float32) for x in scan_inputs(5, False) if x is not None]
    with kernels.backend("fla"):
        assert_same(linear_scan.linear_scan(*given), CASES["linear_scan"].backend("reference")(*given), TOLERANCE[device])
        with pytest.raises(BackendError, match="no kernels for float64"):
            linear_scan.linear_scan(*(x.double() for x in given))


def test_float32_is_multiplied_in_tf32_by_leave_only() -> None:
    with FakeTensorMode():
        x = torch.empty(1, device="cuda")
    assert "TF32" in (needs_tf32(x) or "")
    assert needs_tf32(x.bfloat16()) is None
    with tf32_allowed():
        assert needs_tf32(x) is None


@pytest.mark.parametrize("t", [1, 2, 9])
@pytest.mark.parametrize("start", [True, False])
def test_documents_are_sequences(start: bool, t: int) -> None:
    """By the definition, run on each sequence by itself."""
    q, k, v, g, state, _ = decay_inputs("scalar", False)(t, False)
    given = [q, k, v, g, state if start else None]
    reset = torch.rand(B, t) < 0.4
    reset[1, 0] = True

    def packed(*args: Any, reset: Tensor) -> tuple[Tensor, Tensor]:
        return by_documents(one_by_one, args[:4], args[4], reset)

    def one_by_one(*args: Any) -> tuple[Tensor, Tensor]:
        *inputs, states, offsets = args
        ends = offsets.tolist()
        assert all(a < b for a, b in pairwise(ends))
        done = [
            decay_reference.decay(*(x[:, a:b] for x in inputs), None if states is None else states[i : i + 1])
            for i, (a, b) in enumerate(pairwise(ends))
        ]
        return torch.cat([o for o, _ in done], 1), torch.cat([s for _, s in done])

    assert_same(results(packed, given, reset=reset), results(decay_reference.decay, given, reset=reset), 1e-12)


@pytest.mark.parametrize("name", CASES)
def test_auto_on_a_cpu_asks_no_library(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(LibraryBackend, "refuses", never)
    monkeypatch.setattr(LibraryBackend, "__call__", never)
    case = CASES[name]
    given = case.make(3, False)
    options = {"bonus": given.pop()} if case.operation == "decay" else {}
    getattr({"decay": decay, "delta": delta, "linear_scan": linear_scan}[case.folder], case.operation)(*given, **options)


def test_each_backend_of_the_library_is_tested_and_registered() -> None:
    root = Path(decay.__file__).parents[1]
    written = {
        (path.parent.name, node.name.removeprefix("refuses_"))
        for path in root.glob("*/fla.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("refuses_")
    }
    assert written == {(case.folder, case.operation) for case in CASES.values()}
    for folder, operation in written:
        backends = list(OPERATIONS[operation])
        assert OPERATIONS[operation]["fla"] == LibraryBackend(f"kernels.{folder}.fla", operation)
        assert backends.index("fla") < backends.index("chunked")
