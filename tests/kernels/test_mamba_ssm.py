"""mamba-ssm against the references: decay on its Triton kernels, selective_scan on its CUDA kernel or what stands for it."""

import importlib
import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

import kernels
from kernels.backends import BackendError
from kernels.decay import decay
from kernels.decay import reference as decay_reference
from kernels.linear_scan import reference as scan_reference
from kernels.linear_scan import selective_scan
from tests.kernels.library_backends import TOLERANCE, assert_same, compare, results

CHUNK = 16  # the shortest tile of the library
slow = pytest.mark.slow


@pytest.fixture
def memory(device: str) -> ModuleType:
    pytest.importorskip("mamba_ssm.ops.triton.ssd_combined")
    return importlib.import_module("kernels.decay.mamba_ssm")


@pytest.fixture
def scan(device: str) -> ModuleType:
    pytest.importorskip("mamba_ssm.ops.selective_scan_interface")
    return importlib.import_module("kernels.linear_scan.mamba_ssm")


def memory_inputs(t: int, *, gates: bool = True, state: bool = True, strong: bool = False, shared: bool = False) -> list[Tensor | None]:
    """q, k, v, g, state: two groups of two heads; strong decays are a mix of steps near 0 and steps that forget everything.

    shared: two heads, the memory of each read by two queries."""
    b, n, h, k, v = 3, 2, 2 if shared else 4, 5, 7
    g = -0.2 * torch.randn(b, t, h, dtype=torch.float64).abs()
    if strong:
        g = g * torch.where(torch.rand_like(g) < 0.3, 300.0, 0.1)
    shapes = (b, t, 4 if shared else n, k), (b, t, n, k), (b, t, h, v), (b, h, k, v)
    queries, keys, values, start = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    return [queries, keys + 1, values, g if gates else None, start if state else None]


def resets(b: int, t: int, places: tuple[int, ...]) -> Tensor:
    """Row 0 has documents at the places, the last row at its first token, those between none."""
    reset = torch.zeros(b, t, dtype=torch.bool)
    reset[0, [i for i in places if i < t]] = True
    reset[-1, 0] = True
    return reset


@pytest.mark.parametrize(
    ("t", "packed"),
    [
        (1, True),
        (CHUNK + 1, False),
        (CHUNK + 1, True),
        pytest.param(1, False, marks=slow),
        *(pytest.param(t, packed, marks=slow) for t in (CHUNK - 1, CHUNK, 2 * CHUNK + 2) for packed in (False, True)),
    ],
)
def test_decay_is_the_definition(t: int, packed: bool, memory: ModuleType, device: str) -> None:
    reset = resets(3, t, (3, CHUNK - 1, CHUNK, CHUNK + 4)) if packed else None
    compare(memory.decay, decay_reference.decay, memory_inputs(t), device, reset=reset, chunk=CHUNK)


@pytest.mark.parametrize(
    "options",
    [{"gates": False}, {"state": False}, {"gates": False, "state": False}, {"shared": True}],
    ids=["gates", "state", "both", "shared"],
)
@pytest.mark.parametrize("packed", [False, pytest.param(True, marks=slow)], ids=["one", "packed"])
def test_decay_without(options: dict[str, bool], packed: bool, memory: ModuleType, device: str) -> None:
    reset = resets(3, 5, (2, 3)) if packed else None
    compare(memory.decay, decay_reference.decay, memory_inputs(5, **options), device, reset=reset)


@slow
def test_strong_decay(memory: ModuleType, device: str) -> None:
    """The library sums log decays over a tile in float32: down to -800 here, good to 1e-4."""
    given = memory_inputs(2 * CHUNK + 2, strong=True)
    compare(memory.decay, decay_reference.decay, given, device, max(1e-4, 5e-3 * (device == "cuda")), chunk=CHUNK)


@slow
def test_decay_reads_views_and_trains_parts(memory: ModuleType, device: str) -> None:
    """Inputs that are slices of one projection; only the values need a gradient; the last state needs none."""
    b, t, n, h, k = 2, 9, 1, 2, 5
    joint = torch.randn(b, t, 2 * n * k + h * k, dtype=torch.float64)
    q, key, v = (x.unflatten(-1, (-1, k)) for x in joint.split([n * k, n * k, h * k], -1))
    weight = torch.randn(v.shape, dtype=torch.float64)

    def gradient(backend: ModuleType, place: str, dtype: torch.dtype) -> Tensor:
        leaf = v.to(place, dtype).requires_grad_()
        o, _ = backend.decay(q.to(place, dtype), key.to(place, dtype), leaf)
        return torch.autograd.grad((o * weight.to(o)).sum(), leaf)[0]

    right = gradient(decay_reference, "cpu", torch.float64)
    assert_same([gradient(memory, device, torch.float32)], [right], TOLERANCE[device])


@slow
def test_decay_in_bfloat16(memory: ModuleType, device: str) -> None:
    """What training in bfloat16 gives it: values in float32 beside narrower keys. The last state stays float32."""
    given = memory_inputs(CHUNK + 4)
    right = results(decay_reference.decay, given)

    def low(q: Tensor, k: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        return memory.decay(q.bfloat16(), k.bfloat16(), *rest)

    got = results(low, given, device=device, dtype=torch.float32)
    assert got[0].dtype == got[1].dtype == torch.float32
    assert_same(got, right, 0.02)


def test_decay_goes_on_token_by_token(memory: ModuleType, device: str) -> None:
    """A prompt, then single tokens from its state, which stays as it was."""
    given = memory_inputs(8)
    reset = resets(3, 8, (1, 6))
    right, last = decay_reference.decay(*given, reset=reset)
    q, k, v, g, state = (x.float().to(device) for x in given)
    reset, out = reset.to(device), []
    with torch.no_grad():
        for piece in (slice(0, 5), slice(5, 6), slice(6, 7), slice(7, 8)):
            before = state.clone()
            o, after = memory.decay(q[:, piece], k[:, piece], v[:, piece], g[:, piece], state, reset=reset[:, piece])
            assert torch.equal(state, before)
            out.append(o)
            state = after
    assert_same([torch.cat(out, 1), state], [right, last], TOLERANCE[device])


def test_decay_refuses(memory: ModuleType, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, g, _ = (x.float().to(device) for x in memory_inputs(3))
    refuses = memory.refuses_decay
    assert refuses(q.bfloat16(), k, v, g) is None
    assert (refuses(q, k, v, g) is None) == (device == "cpu")  # TF32 is up to the user
    assert refuses(q[:, :1], k[:, :1], v[:, :1], g[:, :1]) is None
    assert "one scalar a head" in refuses(q, k, v, g[..., None].expand(*g.shape, 5))
    assert "no bonus" in refuses(q, k, v, g, bonus=v.new_zeros(4, 5))
    assert "no kernels for float64" in refuses(q, k, v.double(), g)
    assert "no kernels for float64" in refuses(q, k, v, g.double())
    assert "keys of 300" in refuses(q.new_zeros(3, 3, 2, 300), k.new_zeros(3, 3, 2, 300), v, g)
    assert "65535 of a launch" in refuses(
        q[:1, :1].expand(70000, 1, 2, 5), k[:1, :1].expand(70000, 1, 2, 5), v[:1, :1].expand(70000, 1, 4, 7)
    )
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert refuses(q.cpu(), k.cpu(), v.cpu()) == "tensors on cpu need a GPU here"


def test_decay_by_name(memory: ModuleType, device: str) -> None:
    q, k, v, g, state = (x.float().to(device) for x in memory_inputs(1))
    with kernels.backend("mamba_ssm"):
        o, _ = decay(q, k, v, g, state)
        assert_same([o], [decay_reference.decay(q, k, v, g, state)[0]], TOLERANCE[device])
        with pytest.raises(BackendError, match="'mamba_ssm' can't serve this call: mamba-ssm has no bonus"):
            decay(q, k, v, g, state, bonus=q.new_zeros(4, 5))


def scan_inputs(t: int, state: bool = True) -> list[Tensor | None]:
    """x, dt, A, B, C, state."""
    b, c, n = 3, 5, 4
    x, B, C, start = (torch.randn(shape, dtype=torch.float64) for shape in ((b, t, c), (b, t, n), (b, t, n), (b, c, n)))
    dt, A = torch.rand(b, t, c, dtype=torch.float64), -16 * torch.rand(c, n, dtype=torch.float64)
    return [x, dt, A, B, C, start if state else None]


@pytest.mark.parametrize("t", [1, 2, 9, 33])
@pytest.mark.parametrize("packed", [False, True], ids=["one", "packed"])
@pytest.mark.parametrize("state", [False, True], ids=["fresh", "going on"])
def test_selective_scan_is_the_definition(state: bool, packed: bool, t: int, scan: ModuleType, device: str) -> None:
    reset = resets(3, t, (1, 2, 8, 20)) if packed else None
    compare(scan.selective_scan, scan_reference.selective_scan, scan_inputs(t, state), device, 1e-5, reset=reset)


@pytest.mark.parametrize("size", [1e-9, 1e9])
def test_a_start_state_of_any_size(size: float, scan: ModuleType, device: str) -> None:
    """What writes it is exact: with no input, the output is the state's own."""
    given = scan_inputs(5)
    given[0], given[5] = given[0] * 0, given[5] * size
    compare(scan.selective_scan, scan_reference.selective_scan, given, device, 1e-5)


def test_selective_scan_takes_what_needs_a_gradient_only(scan: ModuleType, device: str) -> None:
    given = scan_inputs(4)
    for place in range(6):
        right, got = (
            [x.to(where, dtype).requires_grad_(i == place) for i, x in enumerate(given)]
            for where, dtype in (("cpu", torch.float64), (device, torch.float32))
        )
        grads = [
            torch.autograd.grad(sum(x.square().sum() for x in backend.selective_scan(*leaves)), leaves[place])[0]
            for backend, leaves in ((scan_reference, right), (scan, got))
        ]
        assert_same([grads[1]], [grads[0]], 1e-5)


def test_selective_scan_keeps_the_dtype(scan: ModuleType, device: str) -> None:
    given = scan_inputs(6)
    right, last = scan_reference.selective_scan(*given)
    x, dt, A, B, C, state = (i.float().to(device) for i in given)
    y, after = scan.selective_scan(x.bfloat16(), dt, A, B.bfloat16(), C.bfloat16(), state)
    assert (y.dtype, after.dtype) == (torch.bfloat16, torch.float32)
    assert_same([y, after], [right, last], 0.02)


def test_selective_scan_refuses(scan: ModuleType, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, dt, A, B, C, state = (i.float().to(device) for i in scan_inputs(3))
    refuses = scan.refuses_selective_scan
    assert refuses(x, dt, A, B, C, state) is None
    assert "no kernels for float64" in refuses(x, dt, A.double(), B, C)
    assert "257 states" in refuses(x, dt, A.new_zeros(5, 257), B, C)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert refuses(x.cpu(), dt, A, B, C) == "tensors on cpu need a GPU here"


def test_a_cpu_asks_for_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted(name: str) -> ModuleType:
        raise AssertionError(name)

    monkeypatch.setattr("kernels.backends.importlib.import_module", unwanted)
    for operation, given in ((decay, memory_inputs(3)), (selective_scan, scan_inputs(3))):
        assert len(operation(*given)) == 2


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mamba_ssm", "kernels.decay.mamba_ssm", "kernels.linear_scan.mamba_ssm"):
        monkeypatch.setitem(sys.modules, name, None)
    for operation, given in ((decay, memory_inputs(3)), (selective_scan, scan_inputs(3))):
        with kernels.backend("mamba_ssm"), pytest.raises(BackendError, match="can't be imported"):
            operation(*given)
