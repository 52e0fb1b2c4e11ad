"""Landmark attention: the tiles against the definition, and what the definition promises."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import kernels
from kernels.landmark import executed_flops, flops, landmark
from kernels.landmark.layout import TILE
from tests.kernels.memory import peak

B, M, G, E, F = 2, 2, 3, 5, 4  # rows, key heads, query heads a key head, key and value widths


def tensors(t: int, s: int, *, spread: float = 1.0) -> list[Tensor]:
    q, k, v = (torch.randn(*shape, dtype=torch.float64) for shape in ((B, t, M * G, E), (B, s, M, E), (B, s, M, F)))
    return [spread * q, k, v]


def regular(s: int, period: int = 4) -> Tensor:
    return (torch.arange(s) % (period + 1) == period).expand(B, s).contiguous()


def packed(s: int) -> Tensor:
    """Leading padding, then documents of unequal length, other ones in each row."""
    index = torch.arange(s)
    return torch.stack([(index >= s // 5).long() + (index >= s // 2).long() - 1, (index >= s // 3).long()])


def run(backend: str, inputs: list[Tensor], marks: Tensor, **options: object) -> list[Tensor]:
    """The output and the gradients of q, k and v."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    with kernels.backend(backend):
        o = landmark(*leaves, marks, **options)  # type: ignore[arg-type]
    weight = torch.randn(o.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(o.dtype)
    return [o.detach(), *torch.autograd.grad((o * weight).sum(), leaves)]


def worst(found: list[Tensor], expected: list[Tensor]) -> float:
    scale = max(float(x.norm()) for x in expected)  # a gradient that is zero but for rounding has no error of its own
    return max(float((a.double() - b).norm() / max(float(b.norm()), 1e-3 * scale)) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("layout", ["one document", "packed, ragged blocks"])
@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize(
    ("t", "s"), [(1, 1), (TILE - 1, TILE - 1), (TILE, TILE), (TILE + 1, TILE + 1), (3, 2 * TILE + 2), (TILE + 6, TILE + 50)]
)
def test_tiles_equal_the_definition(t: int, s: int, top_k: int | None, layout: str) -> None:
    marks, documents = (regular(s), None) if layout == "one document" else (torch.rand(B, s) < 0.2, packed(s))
    inputs = tensors(t, s, spread=3.0)
    chunked, reference = (run(backend, inputs, marks, documents=documents, top_k=top_k) for backend in ("chunked", "reference"))
    assert worst(chunked, reference) < 1e-12


def test_float32_with_strong_scores_and_correlated_keys() -> None:
    s = TILE + 9
    q, k, v = (x.float() for x in tensors(s, s, spread=8.0))
    k = 0.1 * k + k[:, :1]
    marks = regular(s)
    exact = run("reference", [x.double() for x in (q, k, v)], marks)
    assert worst(run("chunked", [q, k, v], marks), exact) < 1e-5


@pytest.mark.parametrize("top_k", [None, 2])
def test_flops_are_what_is_spent(top_k: int | None) -> None:
    for s in (1, 9, TILE + 3):
        q, k, v = (x[:1] for x in tensors(s, s))
        marks = regular(s)[:1]
        sizes = {"heads": M * G, "key": E, "value": F}
        expected = {"reference": flops(marks[0].tolist(), **sizes, top_k=top_k), "chunked": executed_flops(marks[0].tolist(), **sizes)}
        for backend, count in expected.items():
            with kernels.backend(backend), FlopCounterMode(display=False) as counter:
                landmark(q, k, v, marks, top_k=top_k)
            assert counter.get_total_flops() == count, (s, backend)


@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_weights_sum_to_one_and_skip_landmark_values(backend: str) -> None:
    s = 23
    q, k, v = tensors(s, s)
    marks = regular(s)
    with kernels.backend(backend):
        assert torch.allclose(landmark(q, k, torch.ones_like(v), marks), torch.ones(B, s, M * G, F, dtype=torch.float64))
        changed = v.masked_fill(marks[..., None, None], 1e6)
        assert torch.equal(landmark(q, k, changed, marks), landmark(q, k, v, marks))


@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_top_k_reads_the_best_blocks_and_the_earlier_of_equal_ones(backend: str) -> None:
    s = 17  # blocks 0-4, 5-9, 10-14 and an open one
    q, k, v = tensors(s, s)
    marks = regular(s)
    k[:, [4, 14]] = q[:, -1:, ::G].repeat(1, 2, 1, 1) * 9  # the landmarks of the first and the third block tie at the top
    k[:, 9] = -k[:, 4]
    q = q[:, -1:, ::G].repeat_interleave(G, 2)
    with kernels.backend(backend):
        one = landmark(q, k, v, marks, top_k=1)
        alone = landmark(q, k[:, [*range(5), 15, 16]], v[:, [*range(5), 15, 16]], marks[:, [*range(5), 15, 16]])
        assert torch.allclose(one, alone)
        assert torch.equal(landmark(q, k, v, marks, top_k=3), landmark(q, k, v, marks))
        assert not torch.allclose(landmark(q, k, v, marks, top_k=2), one)


@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_a_query_that_sees_nothing_gives_zero_and_finite_gradients(backend: str) -> None:
    inputs = tensors(6, 6)
    marks = torch.tensor([[True, False, True, True, False, False]] * B)
    documents = torch.tensor([[0] * 6, [-1, -1, 0, 0, 1, 1]])
    o, *gradients = run(backend, inputs, marks, documents=documents)
    assert not o[0, 0].any()
    assert not o[1, :3].any()
    assert o[0, 1].any()
    assert all(bool(torch.isfinite(g).all()) for g in gradients)


def test_memory_is_linear_in_the_length() -> None:
    def kept(s: int) -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            landmark(*(x.requires_grad_() for x in tensors(s, s)), regular(s))
        return sum(sizes)

    assert kept(800) <= 2.1 * kept(400)


def test_peak_memory_is_linear_in_the_length() -> None:
    def most(s: int) -> int:
        leaves = [torch.randn(1, s, heads, 4, requires_grad=True) for heads in (2, 1, 1)]
        marks = regular(s, 63)[:1]
        return peak(lambda: torch.autograd.grad(landmark(*leaves, marks).sum(), leaves))

    assert most(4096) <= 2.1 * most(2048)


def test_impossible_sizes_are_told() -> None:
    q, k, v = tensors(4, 4)
    with pytest.raises(ValueError, match="heads must divide"):
        landmark(q[:, :, :5], k, v, regular(4))
    with pytest.raises(ValueError, match="top_k = -1"):
        landmark(q, k, v, regular(4), top_k=-1)
