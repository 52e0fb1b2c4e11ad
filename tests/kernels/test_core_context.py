"""Core-context attention: the tiles against the definition, and what the definition promises."""

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import kernels
from kernels.core_context import boundary, core_context, executed_flops, flops, pool, pool_flops
from kernels.core_context.chunked import TILE
from kernels.core_context.sight import sight
from tests.kernels.memory import peak

B, M, G, E, W = 2, 2, 3, 5, 4  # rows, key heads, query heads a key head, key and value widths


class Call(NamedTuple):
    """The arguments of core_context, tensors first."""

    tensors: list[Tensor]  # q, k, v, cores_k, cores_v
    positions: Tensor
    options: dict[str, object]


def plain(t: int, s: int, group: int, local: int, *, spread: float = 1.0) -> Call:
    """The last t tokens of a document of s."""
    p = s // group
    shapes = ((B, t, M * G, E), (B, s, M, E), (B, s, M, W), (B, p, M * G, E), (B, p, M * G, W))
    q, *others = (torch.randn(*shape, dtype=torch.float64) for shape in shapes)
    return Call([spread * q, *others], torch.arange(s - t, s).expand(B, t), {"group": group, "local": local})


def packed(s: int, group: int, local: int) -> Call:
    """Two rows of documents behind leading padding."""
    rows = [[4, s // 3, s - 4 - s // 3], [0, s - 7, 7]]  # padding, then the lengths of two documents
    documents = torch.tensor([[-1] * a + [0] * b + [1] * c for a, b, c in rows])
    positions = torch.tensor([[0] * a + [*range(b)] + [*range(c)] for a, b, c in rows])
    counts = [(b // group, c // group) for _, b, c in rows]
    p = max(a + b for a, b in counts)
    owners = torch.tensor([[-1] * (p - a - b) + [0] * a + [1] * b for a, b in counts])
    call = plain(s, s, group, local)
    cores = [torch.randn(B, p, M * G, width, dtype=torch.float64) for width in (E, W)]
    return Call([*call.tensors[:3], *cores], positions, {**call.options, "documents": documents, "core_documents": owners})


def run(backend: str, call: Call) -> list[Tensor]:
    """The output and the gradient of every tensor."""
    leaves = [x.clone().requires_grad_() for x in call.tensors]
    with kernels.backend(backend):
        o = core_context(*leaves, call.positions, **call.options)  # type: ignore[arg-type]
    weight = torch.randn(o.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(o.dtype)
    return [o.detach(), *torch.autograd.grad((o * weight).sum(), leaves)]


def worst(found: list[Tensor], expected: list[Tensor]) -> float:
    scale = max(float(x.norm()) for x in expected)  # a gradient that is zero but for rounding has no error of its own
    return max(float((a.double() - b).norm() / max(float(b.norm()), 1e-3 * scale)) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    "call",
    [
        *((t, t, 4, 8) for t in (1, TILE - 1, TILE, TILE + 1, 2 * TILE + 2)),
        (31, 170, 3, 6),
        (60, 60, 1, 3),
        (50, 50, 4, 64),
        (1, 12, 4, 4),
    ],
)
def test_tiles_equal_the_definition(call: tuple[int, int, int, int]) -> None:
    made = plain(*call, spread=3.0)
    assert worst(run("chunked", made), run("reference", made)) < 1e-12


@pytest.mark.parametrize("s", [20, TILE + 30])
def test_tiles_equal_the_definition_in_packed_rows(s: int) -> None:
    made = packed(s, 3, 6)
    chunked, reference = run("chunked", made), run("reference", made)
    assert worst(chunked, reference) < 1e-12
    assert not chunked[0][0, :4].any()  # padding


def test_a_document_alone_equals_it_packed() -> None:
    made = packed(40, 3, 6)
    start, stop = 4, 4 + 40 // 3
    owned = made.options["core_documents"][0] == 0  # type: ignore[index]
    q, k, v = (x[:1, start:stop] for x in made.tensors[:3])
    cores = (x[:1, owned] for x in made.tensors[3:])
    alone = core_context(q, k, v, *cores, made.positions[:1, start:stop], group=3, local=6)
    assert torch.allclose(run("chunked", made)[0][:1, start:stop], alone)


def test_float32_with_strong_scores_and_correlated_keys() -> None:
    made = plain(TILE + 9, TILE + 9, 4, 8, spread=8.0)
    q, k, v, cores_k, cores_v = (x.float() for x in made.tensors)
    single = [q, 0.1 * k + k[:, :1], v, 0.1 * cores_k + cores_k[:, :1], cores_v]
    exact = run("reference", made._replace(tensors=[x.double() for x in single]))
    assert worst(run("chunked", made._replace(tensors=single)), exact) < 1e-5


def test_flops_are_what_is_spent() -> None:
    sizes = {"heads": M * G, "key": E, "value": W}
    for s, group, local in ((1, 4, 8), (67, 4, 8), (300, 3, 9), (140, 4, 512)):
        made = plain(s, s, group, local)
        tensors = [x[:1] for x in made.tensors]
        for backend, count in (("reference", flops(s, group, local, **sizes)), ("chunked", executed_flops(s, group, local, **sizes))):
            with kernels.backend(backend), FlopCounterMode(display=False) as counter:
                core_context(*tensors, made.positions[:1], group=group, local=local)
            assert counter.get_total_flops() == count, (s, backend)


def test_pooling_flops_are_what_is_spent() -> None:
    with FlopCounterMode(display=False) as counter:
        pool(torch.randn(1, 6, M * G, E), torch.randn(1, 6, 3, M, E), torch.randn(1, 6, 3, M, W))
    assert counter.get_total_flops() == pool_flops(6, 3, heads=M * G, key=E, value=W)


@pytest.mark.parametrize(("group", "local"), [(1, 1), (3, 3), (4, 8), (16, 32)])
def test_cores_and_keys_cover_every_token_once(group: int, local: int) -> None:
    length = 70
    view = sight(torch.arange(length)[None], group, local, None, None, length)
    for x, (first, stop, low, high) in enumerate(zip(*(i[0].tolist() for i in view), strict=True)):
        by_cores = [token for p in range(first, stop) for token in range(p * group, (p + 1) * group)]
        assert [*by_cores, *range(low, high)] == [*range(x + 1)]
        assert stop * group == low == boundary(x, group, local)
        assert min(x + 1, local) <= high - low < local + group


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    heads = (x.transpose(1, 2) for x in (q, k.repeat_interleave(G, 2), v.repeat_interleave(G, 2)))
    return F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2)


@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_groups_of_one_and_a_long_local_part_are_causal_attention(backend: str) -> None:
    made = plain(30, 30, 1, 5)
    q, k, v = made.tensors[:3]
    cores = pool(q, k[:, :, None], v[:, :, None])
    with kernels.backend(backend):
        assert torch.allclose(core_context(q, k, v, *cores, made.positions, group=1, local=5), causal(q, k, v))
        assert torch.allclose(core_context(*made.tensors, made.positions, group=2, local=30), causal(q, k, v))


def test_weights_sum_to_one() -> None:
    made = plain(50, 50, 4, 8)
    q, k, v, cores_k, cores_v = made.tensors
    o = core_context(q, k, torch.ones_like(v), cores_k, torch.ones_like(cores_v), made.positions, group=4, local=8)
    assert torch.allclose(o, torch.ones_like(o))


def test_pooling() -> None:
    q, k, v = (torch.randn(*shape, dtype=torch.float64) for shape in ((B, 6, M * G, E), (B, 6, 3, M, E), (B, 6, 3, M, W)))
    keys, values = pool(q, k, v)
    row, p, head = 1, 4, 4  # query head 4 uses key head 1
    alpha = torch.stack([q[row, p, head] @ k[row, p, i, 1] for i in range(3)]).div(E**0.5).softmax(0)
    assert torch.allclose(keys[row, p, head], sum(alpha[i] * k[row, p, i, 1] for i in range(3)))
    assert torch.allclose(values[row, p, head], sum(alpha[i] * v[row, p, i, 1] for i in range(3)))
    assert torch.equal(pool(q, k, v, pooling="mean")[0][row, p, head], k[row, p, :, 1].mean(0))
    assert torch.equal(pool(q, k, v, pooling="max")[1][row, p, head], v[row, p, :, 1].amax(0))


def test_memory_is_linear_in_the_length() -> None:
    def kept(s: int) -> int:
        sizes = []
        made = plain(s, s, 4, 8)
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            core_context(*(x.requires_grad_() for x in made.tensors), made.positions, group=4, local=8)
        return sum(sizes)

    assert kept(800) <= 2.1 * kept(400)


def test_peak_memory_is_linear_in_the_length() -> None:
    def most(s: int) -> int:
        leaves = [torch.randn(1, n, heads, 4, requires_grad=True) for n, heads in ((s, 2), (s, 1), (s, 1), (s // 16, 2), (s // 16, 2))]
        positions = torch.arange(s)[None]
        return peak(lambda: torch.autograd.grad(core_context(*leaves, positions, group=16, local=64).sum(), leaves))

    assert most(4096) <= 2.1 * most(2048)


def test_impossible_sizes_are_told() -> None:
    made = plain(8, 8, 4, 8)
    with pytest.raises(ValueError, match="multiple of group"):
        core_context(*made.tensors, made.positions, group=4, local=6)
    with pytest.raises(ValueError, match="come together"):
        core_context(*made.tensors, made.positions, group=4, local=8, documents=torch.zeros_like(made.positions))
