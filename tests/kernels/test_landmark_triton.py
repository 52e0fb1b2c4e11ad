"""Our Triton kernels of landmark attention against the definition, in float32: under the interpreter, and on a GPU."""

import pytest
import torch
from torch import Tensor

import kernels
from kernels.backends import BackendError
from kernels.landmark import landmark
from kernels.landmark.cells import choose, find

E, F = 12, 20  # key and value widths: neither is a power of two


def tensors(t: int, s: int, b: int, m: int, g: int) -> list[Tensor]:
    """b rows, m key heads, g query heads a key head."""
    shapes = ((b, t, m * g, E), (b, s, m, E), (b, s, m, F))
    return [torch.randn(*shape, dtype=torch.float64) for shape in shapes]


def results(backend: str, given: list[Tensor], marks: Tensor, **options: object) -> list[Tensor]:
    """The output and the gradients of q, k and v."""
    leaves = [x.clone().requires_grad_() for x in given]
    with kernels.backend(backend):
        o = landmark(*leaves, marks, **options)  # type: ignore[arg-type]
    weight = torch.randn(o.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(o)
    return [o.detach(), *torch.autograd.grad((o * weight).sum(), leaves)]


def error(device: str, given: list[Tensor], marks: Tensor, documents: Tensor | None = None, **options: object) -> float:
    """The largest relative norm of a difference."""
    right = results("reference", given, marks, documents=documents, **options)
    moved = None if documents is None else documents.to(device)
    found = results("triton", [x.float().to(device) for x in given], marks.to(device), documents=moved, **options)
    scale = max(float(x.norm()) for x in right[1:])
    return max(float((a.double().cpu() - b).norm()) / max(float(b.norm()), 1e-3 * scale) for a, b in zip(found, right, strict=True))


def regular(s: int, period: int) -> Tensor:
    return (torch.arange(s) % (period + 1) == period)[None]


def packed(s: int) -> Tensor:
    """Leading padding and two documents, and two documents."""
    index = torch.arange(s)
    return torch.stack([(index >= s // 5).long() + (index >= s // 2).long() - 1, (index >= s // 3).long()])


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("t", "s", "period", "top_k"),
    [
        (36, 36, 6, None),
        (3, 45, 20, None),  # blocks longer than a tile
        pytest.param(36, 36, 6, 2, marks=SLOW),
        pytest.param(40, 40, 15, None, marks=SLOW),  # as long as a tile
        pytest.param(20, 66, 20, 1, marks=SLOW),
        pytest.param(20, 20, 30, 1, marks=SLOW),  # no landmark at all
        pytest.param(36, 36, 6, 0, marks=SLOW),
    ],
)
def test_blocks_of_one_length(device: str, t: int, s: int, period: int, top_k: int | None) -> None:
    assert error(device, tensors(t, s, 1, 2, 2), regular(s, period), top_k=top_k) < 1e-5


@pytest.mark.parametrize(
    ("t", "s", "rate", "top_k"),
    [(34, 34, 0.15, 2), pytest.param(50, 50, 0.3, None, marks=SLOW), pytest.param(21, 66, 0.04, 1, marks=SLOW)],
)
def test_packed_documents_of_ragged_blocks(device: str, t: int, s: int, rate: float, top_k: int | None) -> None:
    assert error(device, tensors(t, s, 2, 1, 2), torch.rand(2, s) < rate, packed(s), top_k=top_k) < 1e-5


def test_a_query_that_sees_nothing_gives_zero_and_finite_gradients(device: str) -> None:
    marks = torch.tensor([[True, False, True, True, False, False]] * 2)
    documents = torch.tensor([[0] * 6, [-1, -1, 0, 0, 1, 1]])
    given = tensors(6, 6, 2, 1, 1)
    o, *gradients = results("triton", [x.float().to(device) for x in given], marks.to(device), documents=documents.to(device))
    assert not o[0, 0].any()
    assert not o[1, :3].any()
    assert all(bool(torch.isfinite(g).all()) for g in gradients)
    assert error(device, given, marks, documents) < 1e-5


def test_the_best_blocks_are_chosen_and_the_earlier_of_equal_ones() -> None:
    marks = regular(17, 4)  # blocks 0-4, 5-9, 10-14 and an open one
    k = torch.zeros(1, 17, 1, 2)
    k[0, [4, 9, 14], 0, 0] = torch.tensor([2.0, 1.0, 2.0])
    q = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).expand(1, 2, 2, 2)  # two queries of two heads: the second wants the smallest
    cells = find(marks, None)
    assert choose(q, k, cells, 1, 1.0).tolist() == [[[[0], [0]], [[1], [1]]]]
    assert choose(q, k, cells, 2, 1.0).sort().values.tolist() == [[[[0, 2], [0, 2]], [[0, 1], [0, 1]]]]
    assert choose(q, k, cells, 1, -1.0).tolist() == [[[[1], [1]], [[0], [0]]]]


def test_what_it_refuses(device: str) -> None:
    q, k, v = (x.to(device) for x in tensors(4, 4, 1, 1, 1))
    marks = regular(4, 2).to(device)
    with kernels.backend("triton"):
        with pytest.raises(BackendError, match="float64"):
            landmark(q, k, v, marks)
        with pytest.raises(BackendError, match="200 channels"):
            landmark(q.float(), k.float(), v.float().repeat(1, 1, 1, 10), marks)
