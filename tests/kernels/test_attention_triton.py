"""Our Triton kernels of attention against the definition, in float32: under the interpreter, and on a GPU."""

from typing import Any

import pytest
import torch
from torch import Tensor

import kernels
from kernels import BackendError
from kernels.attention import attention, differential, fused, tiles, visible
from kernels.chips import Tiles

triton = pytest.importorskip("kernels.attention.triton")

B, M, G, E, W = 2, 2, 2, 5, 20  # rows, key heads, queries a key head, key and value widths: neither is a power of two
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.fixture(autouse=True)
def _short_tiles(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """Under the interpreter tiles so short that tiny calls have blocks of every kind; on a GPU those of the GPU."""
    if device == "cpu":
        monkeypatch.setattr(triton, "tiles", lambda *_: Tiles(16, 16, 4, 1))


def rows(t: int, s: int, names: str) -> dict[str, Tensor]:
    """Of documents, positions and where keys are: the first row has three documents, the second leading padding and two."""
    document = torch.zeros(B, s, dtype=torch.int64)
    document[0, s // 3 :], document[0, s // 3 + 2 :] = 1, 2
    document[1, s // 2 :] = 1
    document[1, : min(3, s - 1)] = -1
    first = (document[:, None, :] < document[:, :, None]).sum(-1)
    position = torch.where(document >= 0, torch.arange(s) - first, 0)
    if "documents" not in names:
        position = torch.arange(s).expand(B, s)
        position = torch.where(position < 2, position, position + 4)  # a cache with a hole behind its first two keys
    given = {"q_documents": document[:, s - t :], "k_documents": document, "q_positions": position[:, s - t :], "k_positions": position}
    return {name: x for name, x in given.items() if name.split("_")[1] in names or name in names}


def results(backend: str, inputs: list[Tensor], call: Any) -> list[Tensor]:
    """The output and the gradient of every input."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    with kernels.backend(backend):
        o = call(*leaves)
    weight = torch.randn(o.shape, generator=torch.Generator().manual_seed(1)).to(o)
    return [o.detach(), *torch.autograd.grad((o * weight).sum(), leaves)]


def check(device: str, inputs: list[Tensor], call: Any, options: dict[str, Any], dtype: torch.dtype = torch.float32) -> None:
    """Values and gradients against the definition in float64, by one relative norm a tensor."""
    truth = results("reference", [x.double() for x in inputs], lambda *x: call(*x, **options))
    there = {name: x.to(device) if isinstance(x, Tensor) else x for name, x in options.items()}
    found = results("triton", [x.to(device, dtype) for x in inputs], lambda *x: call(*x, **there))
    largest = max(float(b.norm()) for b in truth)
    for a, b in zip(found, truth, strict=True):
        assert a.dtype == dtype
        size = float(b.norm())
        scale = size if size > 1e-9 * largest else largest  # of one key alone: the gradient of its score is 0, a difference of sums
        assert float((a.cpu().double() - b).norm()) < TOLERANCE[dtype] * scale


def tensors(t: int, s: int, b: int = B) -> list[Tensor]:
    m = M if b == 1 else 1
    return [torch.randn(b, t, m * G, E), torch.randn(b, s, m, E), torch.randn(b, s, m, W)]


def with_sink_logits(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None = None, **options: Any) -> Tensor:
    return attention(q, k, v, sink_logits=sinks, **options)


CASES = [
    (34, 34, "", {}),
    (1, 35, "", {"window": 20, "sink_tokens": 2}),
    (19, 41, "", {"window": 9, "sink_tokens": 3, "softcap": 1.5}),
    (33, 33, "documents", {}),
    (18, 33, "documents k_positions", {"window": 7, "sink_tokens": 2, "softcap": 1.5}),
    (20, 20, "positions", {"window": 9}),
]


@pytest.mark.parametrize(("t", "s", "names", "options"), CASES)
def test_masks(device: str, t: int, s: int, names: str, options: dict[str, Any]) -> None:
    q, k, v = tensors(t, s, B if names else 1)
    sinks = [torch.randn(q.shape[2])] if "softcap" in options else []
    check(device, [q, k, v, *sinks], with_sink_logits, options | rows(t, s, names))


@pytest.mark.slow
@pytest.mark.parametrize(("window", "sink_tokens"), [(None, 0), (1, 0), (16, 0), (17, 2), (30, 5)])
@pytest.mark.parametrize("names", ["", "documents", "documents positions", "documents k_positions", "positions", "k_positions"])
@pytest.mark.parametrize(("softcap", "sinks"), [(None, False), (1.5, False), (None, True), (1.5, True)])
def test_all_masks(device: str, window: int | None, sink_tokens: int, names: str, softcap: float | None, sinks: bool) -> None:
    if names == "documents":
        sink_tokens = 0
    for t, s in ((1, 1), (16, 16), (31, 33), (70, 70)):
        inputs = tensors(t, s) + ([torch.randn(G)] if sinks else [])
        options = {"window": window, "sink_tokens": sink_tokens, "softcap": softcap, "scale": 0.9}
        check(device, inputs, with_sink_logits, options | rows(t, s, names))


@pytest.mark.parametrize(("n", "t", "names", "options"), [(2, 33, "", {}), (1, 18, "documents positions", {"window": 9, "sink_tokens": 2})])
def test_differential(device: str, n: int, t: int, names: str, options: dict[str, Any]) -> None:
    s, b, m = 33, *((B, 1) if names else (1, M))
    shapes = [(b, t, 2, m * G, E), (b, s, n, m, E), (b, s, m, W), (b, t, m * G)]
    check(device, [torch.randn(shape) for shape in shapes], differential, options | rows(t, s, names))


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(("window", "sink_tokens"), [(None, 0), (1, 0), (17, 2)])
@pytest.mark.parametrize("names", ["", "documents positions", "documents k_positions", "k_positions"])
def test_all_of_differential(device: str, n: int, window: int | None, sink_tokens: int, names: str) -> None:
    for t, s in ((1, 1), (1, 40), (31, 33), (50, 50)):
        shapes = [(B, t, 2, M * G, E), (B, s, n, M, E), (B, s, M, W), (B, t, M * G)]
        options = {"window": window, "sink_tokens": sink_tokens, "scale": 0.9} | rows(t, s, names)
        check(device, [torch.randn(shape) for shape in shapes], differential, options)


def test_a_query_that_sees_nothing_gives_zero_with_finite_gradients(device: str) -> None:
    documents = torch.full((B, 16), -1, device=device)
    documents[0, 13:] = 0
    inputs = [x.to(device) for x in [*tensors(16, 16), torch.randn(G)]]
    found = results("triton", inputs, lambda *x: with_sink_logits(*x, q_documents=documents, k_documents=documents))
    assert found[0][1].abs().max() == 0
    assert found[0][0, :13].abs().max() == 0
    assert all(bool(x.isfinite().all()) for x in found)


def test_sharp_rows_and_correlated_keys_under_a_wide_cap(device: str) -> None:
    q, k, v = tensors(20, 20, 1)
    check(device, [6 * q, k + k[:, :1], v], attention, {"softcap": 50.0})


def test_bfloat16(device: str) -> None:
    check(device, tensors(20, 20, 1), attention, {"window": 9}, torch.bfloat16)


def test_inputs_that_are_not_contiguous_or_need_no_gradient(device: str) -> None:
    q, k, v = (x.to(device) for x in tensors(16, 16))
    strided = torch.cat([k, k], -1)[..., ::2].requires_grad_()
    with kernels.backend("triton"):
        o = attention(q, strided, v.transpose(0, 1).contiguous().transpose(0, 1), window=9)
    o.sum().backward()
    with kernels.backend("reference"):
        assert (o - attention(q, strided, v, window=9)).abs().max() < 1e-5
    assert strided.grad is not None


def test_what_is_refused(device: str) -> None:
    q, k, v = (x.to(device) for x in tensors(4, 4))
    wide = torch.randn(*v.shape[:3], 300, device=device)
    for given, why in (((q.double(), k.double(), v.double()), "float64"), ((q, k.half(), v), "share"), ((q, k, wide), "at most 256")):
        with kernels.backend("triton"), pytest.raises(BackendError, match=why):
            attention(*given)


def test_torchs_fused_attention_goes_first_where_it_can(device: str) -> None:
    q = torch.randn(B, 8, M, E, device=device)
    options: Any = {"softcap": None, "sink_logits": None, "scale": None}
    plain, window = (visible.sight(8, 8, None, None, None, None, window, 0) for window in (None, 3))
    assert fused.refuses_attention(q, q, q, plain, **options) is None
    assert fused.refuses_attention(q, q, q, window, **options) is not None
    assert tiles.fused(8, 8, None, softcap=False, sink_logits=False, same_width=True)
