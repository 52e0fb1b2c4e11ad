"""Our Triton kernels of core-context attention against the definition, in float32: under the interpreter, and on a GPU."""

import pytest
import torch
from torch import Tensor

import kernels
from kernels.backends import BackendError
from kernels.core_context import core_context

M, G, E, F = 2, 2, 12, 20  # key heads, query heads a key head, key and value widths: neither is a power of two
SLOW = pytest.mark.slow
NAMES = ("positions", "documents", "core_documents")


def plain(t: int, s: int, group: int, local: int, *, b: int = 1, cores: int | None = None) -> dict[str, object]:
    """The last t tokens of a document of s."""
    p = s // group if cores is None else cores
    shapes = {"q": (t, M * G, E), "k": (s, M, E), "v": (s, M, F), "cores_k": (p, M * G, E), "cores_v": (p, M * G, F)}
    made = {name: torch.randn(b, *shape, dtype=torch.float64) for name, shape in shapes.items()}
    return {**made, "positions": torch.arange(s - t, s).expand(b, t), "group": group, "local": local}


def packed(s: int, group: int, local: int) -> dict[str, object]:
    """Two rows of documents behind leading padding."""
    rows = [[4, s // 3, s - 4 - s // 3], [0, s - 7, 7]]  # padding, then the lengths of two documents
    counts = [(b // group, c // group) for _, b, c in rows]
    p = max(a + b for a, b in counts)
    return {
        **plain(s, s, group, local, b=2, cores=p),
        "positions": torch.tensor([[0] * a + [*range(b)] + [*range(c)] for a, b, c in rows]),
        "documents": torch.tensor([[-1] * a + [0] * b + [1] * c for a, b, c in rows]),
        "core_documents": torch.tensor([[-1] * (p - a - b) + [0] * a + [1] * b for a, b in counts]),
    }


def results(backend: str, call: dict[str, object], device: str, dtype: torch.dtype) -> list[Tensor]:
    """The output and the gradient of every tensor."""
    moved = {name: x.to(device) if isinstance(x, Tensor) else x for name, x in call.items()}
    leaves = {name: x.to(dtype).requires_grad_() for name, x in moved.items() if isinstance(x, Tensor) and name not in NAMES}
    with kernels.backend(backend):
        o = core_context(**{**moved, **leaves})  # type: ignore[arg-type]
    weight = torch.randn(o.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(o)
    return [o.detach(), *torch.autograd.grad((o * weight).sum(), list(leaves.values()))]


def error(device: str, call: dict[str, object]) -> float:
    """The largest relative norm of a difference."""
    right, found = results("reference", call, "cpu", torch.float64), results("triton", call, device, torch.float32)
    scale = max(float(x.norm()) for x in right[1:])
    return max(float((a.double().cpu() - b).norm()) / max(float(b.norm()), 1e-3 * scale) for a, b in zip(found, right, strict=True))


@pytest.mark.parametrize(
    ("t", "s", "group", "local"),
    [(40, 40, 3, 6), (1, 40, 4, 8), pytest.param(17, 45, 1, 3, marks=SLOW), pytest.param(20, 20, 4, 32, marks=SLOW), (3, 3, 4, 8)],
)
def test_one_document(device: str, t: int, s: int, group: int, local: int) -> None:
    assert error(device, plain(t, s, group, local)) < 1e-5


@pytest.mark.parametrize("s", [26, pytest.param(70, marks=SLOW)])
def test_packed_documents(device: str, s: int) -> None:
    assert error(device, packed(s, 3, 6)) < 1e-5


def test_what_it_refuses(device: str) -> None:
    call = plain(4, 4, 2, 2)
    with pytest.raises(BackendError, match="float64"):
        results("triton", call, device, torch.float64)
    wide = {name: x.repeat(1, 1, 1, 10) for name, x in call.items() if name in ("v", "cores_v") and isinstance(x, Tensor)}
    with pytest.raises(BackendError, match="200 channels"):
        results("triton", {**call, **wide}, device, torch.float32)
