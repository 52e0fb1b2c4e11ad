"""Softmax and differential attention: the chunked back end against the definition, the definition against a dense mask, and the cost."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import kernels
from kernels.attention import SDPA_FLOPS, attention, differential, executed_flops, flops, tiles, visible_pairs
from tests.kernels.memory import peak

SIZES_AS_SHIPPED = {name: getattr(tiles, name) for name in ("BLOCK", "ROWS", "ALIGN", "ENTRIES")}
B, M, G, E, W = 2, 3, 2, 5, 7  # batch, key heads, queries a key head, key width, value width: pairwise different


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles small enough that tiny calls cross their borders, in pieces of some pairs."""
    monkeypatch.setattr(tiles, "BLOCK", 8)
    monkeypatch.setattr(tiles, "ROWS", 4)
    monkeypatch.setattr(tiles, "ALIGN", 2)
    monkeypatch.setattr(tiles, "ENTRIES", {"cpu": 300})


def tensors(t: int, s: int, width: int = W, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    shapes = [(B, t, M * G, E), (B, s, M, E), (B, s, M, width)]
    return [torch.randn(shape, dtype=dtype) for shape in shapes]


def packed_rows(t: int, s: int) -> dict[str, Tensor]:
    """Two rows of documents with positions; the second row begins with padding, which some queries may be."""
    documents = torch.zeros(B, s, dtype=torch.int64)
    documents[0, s // 3 :] = 1
    documents[0, s // 3 + 2 :] = 2
    pads = min(3, s - 1)
    documents[1, s // 2 :] = 1
    documents[1, :pads] = -1
    index = torch.arange(s).expand(B, s)
    first = (documents[:, None, :] < documents[:, :, None]).sum(-1)
    positions = torch.where(documents >= 0, index - first, 0)
    return {
        "q_documents": documents[:, s - t :],
        "k_documents": documents,
        "q_positions": positions[:, s - t :],
        "k_positions": positions,
    }


def dense_mask(t: int, s: int, window: int | None, sink_tokens: int, rows: dict[str, Tensor]) -> Tensor:
    """bool (b, t, s), written from the definition, independently of the kernel."""
    mask = torch.zeros(B, t, s, dtype=torch.bool)
    for b, i, j in itertools.product(range(B), range(t), range(s)):
        at = s - t + i
        same = "k_documents" not in rows or (rows["k_documents"][b, j] == rows["q_documents"][b, i] and rows["q_documents"][b, i] >= 0)
        position = int(rows["k_positions"][b, j]) if rows else j
        here = int(rows["q_positions"][b, i]) if "q_positions" in rows else at
        behind = here - position if "q_positions" in rows or not rows else at - j
        mask[b, i, j] = bool(j <= at and same and (window is None or behind < window or position < sink_tokens))
    return mask


def dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, softcap: float | None, sinks: Tensor | None, scale: float | None) -> Tensor:
    k, v = k.repeat_interleave(G, 2), v.repeat_interleave(G, 2)
    scores = torch.einsum("bthe,bshe->bhts", q, k) * (E**-0.5 if scale is None else scale)
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    scores = scores.exp() * mask[:, None]
    total = scores.sum(-1, keepdim=True) + (0 if sinks is None else sinks.exp()[:, None, None])
    return torch.einsum("bhts,bshw->bthw", scores / total.clamp(min=1e-300), v)


def error(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm().clamp(min=0.1))  # some gradients are 0


def run(backend: str, inputs: list[Tensor], weight: Tensor, call: Any) -> list[Tensor]:
    """The output and the gradient of every input."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    with kernels.backend(backend):
        o = call(*inputs)
    return [o, *torch.autograd.grad((o * weight).sum(), inputs)]


SIZES = [(1, 1), (1, 9), (8, 8), (9, 9), (5, 12), (18, 25)]
MORE_SIZES = [(4, 4), (7, 7), (18, 18), (35, 35), (18, 40)]
MASKS = [(None, 0), (1, 0), (3, 0), (3, 2), (9, 2)]
MORE_MASKS = [*MASKS, (5, 1), (9, 0), (6, 3)]


@pytest.mark.parametrize(("window", "sink_tokens"), MASKS)
@pytest.mark.parametrize("mode", ["plain", "packed", "packed by keys", "positions"])
@pytest.mark.parametrize(("softcap", "sink_logits"), [(None, False), (1.5, True)])
def test_backends_agree(window: int | None, sink_tokens: int, mode: str, softcap: float | None, sink_logits: bool) -> None:
    for t, s in SIZES:
        compare(t, s, window, sink_tokens, mode, softcap, sink_logits)


@pytest.mark.slow
@pytest.mark.parametrize(("window", "sink_tokens"), MORE_MASKS)
@pytest.mark.parametrize("mode", ["plain", "packed", "packed by keys", "positions"])
@pytest.mark.parametrize(("softcap", "sink_logits"), [(None, False), (1.5, False), (None, True), (1.5, True)])
def test_backends_agree_everywhere(window: int | None, sink_tokens: int, mode: str, softcap: float | None, sink_logits: bool) -> None:
    for t, s in SIZES + MORE_SIZES:
        compare(t, s, window, sink_tokens, mode, softcap, sink_logits)


def compare(t: int, s: int, window: int | None, sink_tokens: int, mode: str, softcap: float | None, sink_logits: bool) -> None:
    """The definition against the dense formula; the chunked back end against the definition, values and gradients."""
    rows = mode_rows(mode, t, s)
    for width in (W, E) if mode == "plain" else (W,):
        inputs = tensors(t, s, width)
        sinks = [torch.randn(M * G, dtype=torch.float64)] if sink_logits else []

        def call(q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None = None) -> Tensor:
            options: Any = {"window": window, "sink_tokens": sink_tokens, "softcap": softcap, "scale": 0.9}
            return attention(q, k, v, sink_logits=sink, **rows, **options)

        weight = torch.randn(B, t, M * G, width, dtype=torch.float64)
        truth, fast = (run(backend, inputs + sinks, weight, call) for backend in ("reference", "chunked"))
        mask = dense_mask(t, s, window, sink_tokens, rows)
        assert error(truth[0], dense(*inputs, mask, softcap, *(sinks or [None]), 0.9)) < 1e-10
        for a, b in zip(fast, truth, strict=True):
            assert error(a, b) < 1e-10


def mode_rows(mode: str, t: int, s: int) -> dict[str, Tensor]:
    """What a call says of its rows."""
    if mode == "plain":
        return {}
    if mode == "positions":  # a cache with a hole behind its first two keys
        index = torch.arange(s).expand(B, s)
        index = torch.where(index < 2, index, index + 4)
        return {"q_positions": index[:, s - t :], "k_positions": index}
    rows = packed_rows(t, s)
    if mode == "packed by keys":
        del rows["q_positions"]
    return rows


@pytest.mark.parametrize(("window", "sink_tokens"), [(None, 0), (3, 2), (9, 0)])
@pytest.mark.parametrize("mode", ["plain", "packed", "positions"])
@pytest.mark.parametrize("entries", [1, 10**6])
def test_pieces_of_one_pair_and_of_many_blocks(
    entries: int, window: int | None, sink_tokens: int, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "ENTRIES", {"cpu": entries})
    compare(35, 42, window, sink_tokens, mode, 1.5, True)


@pytest.mark.parametrize("shared_keys", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("window", "sink_tokens"), MASKS)
def test_differential_is_two_attentions_subtracted(window: int | None, sink_tokens: int, packed: bool, shared_keys: bool) -> None:
    for t, s in SIZES:
        rows = packed_rows(t, s) if packed else {}
        n = 1 if shared_keys else 2
        shapes = [(B, t, 2, M * G, E), (B, s, n, M, E), (B, s, M, W), (B, t, M * G)]
        inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
        weight = torch.randn(B, t, M * G, W, dtype=torch.float64)
        options: Any = {"window": window, "sink_tokens": sink_tokens, **rows}

        def one(q: Tensor, k: Tensor, v: Tensor, mix: Tensor, options: Any = options) -> Tensor:
            return differential(q, k, v, mix, **options)

        def two(q: Tensor, k: Tensor, v: Tensor, mix: Tensor, options: Any = options) -> Tensor:
            first, second = (attention(q[:, :, j], k[:, :, j % k.shape[2]], v, **options) for j in (0, 1))
            return first - mix[..., None] * second

        truth = run("reference", inputs, weight, two)
        for backend in ("reference", "chunked"):
            for a, b in zip(run(backend, inputs, weight, one), truth, strict=True):
                assert error(a, b) < 1e-10


@pytest.mark.parametrize("sink_logits", [False, True])
def test_a_query_that_sees_nothing_gives_zero_with_finite_gradients(sink_logits: bool) -> None:
    t = 9
    documents = torch.full((B, t), -1)
    documents[0, 5:] = 0
    sink = torch.randn(M * G, dtype=torch.float64) if sink_logits else None
    for backend in ("reference", "chunked"):
        results = run(
            backend,
            tensors(t, t),
            torch.ones(B, t, M * G, W, dtype=torch.float64),
            lambda q, k, v: attention(q, k, v, q_documents=documents, k_documents=documents, sink_logits=sink),
        )
        assert results[0][1].abs().max() == 0
        assert results[0][0, :5].abs().max() == 0
        assert all(bool(x.isfinite().all()) for x in results)


@pytest.mark.parametrize("options", [{}, {"window": 5}, {"window": 5, "sink_tokens": 2}, {"softcap": 5.0}])
def test_float32_with_strong_scores(options: dict[str, Any]) -> None:
    q, k, v = tensors(35, 35)
    q, k = 6 * q, k + k[:, :1]  # sharp rows, correlated keys
    weight = torch.randn(B, 35, M * G, W, dtype=torch.float64)
    truth = run("reference", [q, k, v], weight, lambda *x: attention(*x, **options))
    for backend in ("reference", "chunked"):
        narrow = run(backend, [x.float() for x in (q, k, v)], weight.float(), lambda *x: attention(*x, **options))
        assert all(error(a, b) < 1e-5 for a, b in zip(narrow, truth, strict=True))


def test_a_trimmed_cache_of_sinks_and_window_needs_no_positions() -> None:
    q, k, v = tensors(20, 20)
    whole = attention(q, k, v, window=4, sink_tokens=2)
    for start in range(8, 20):
        keep = torch.tensor([0, 1, *range(start - 3, 20)])
        o = attention(q[:, start:], k[:, keep], v[:, keep], window=4, sink_tokens=2)
        assert error(o, whole[:, start:]) < 1e-12


@pytest.mark.parametrize(("window", "sink_tokens"), MASKS)
def test_flops_are_what_is_counted(window: int | None, sink_tokens: int) -> None:
    for length in (1, 4, 9, 21):
        where: Any = {"window": window, "sink_tokens": sink_tokens}
        assert visible_pairs(length, window, sink_tokens) == int(dense_mask(length, length, window, sink_tokens, {})[0].sum())
        check_flops(length, W, None, False, where)
        check_flops(length, E, 2.0, True, where)
        if length != 4:
            check_flops(length, E, None, False, where)
            check_differential_flops(length, where)


def counted(backend: str, call: Any) -> int:
    with kernels.backend(backend), torch.no_grad(), FlopCounterMode(display=False, custom_mapping=SDPA_FLOPS) as counter:
        call()
    return counter.get_total_flops()


def check_flops(length: int, width: int, softcap: float | None, sink_logits: bool, where: dict[str, Any]) -> None:
    q, k, v = (x[:1] for x in tensors(length, length, width))
    sinks = torch.randn(M * G) if sink_logits else None

    def call() -> None:
        attention(q, k, v, softcap=softcap, sink_logits=sinks, **where)

    assert counted("reference", call) == flops(length, M * G, E, width, **where)
    spent = executed_flops(length, M * G, E, width, softcap=softcap is not None, sink_logits=sink_logits, **where)
    assert counted("chunked", call) == spent


def check_differential_flops(length: int, where: dict[str, Any]) -> None:
    inputs = [torch.randn(1, length, *shape) for shape in ((2, M * G, E), (2, M, E), (M, W), (M * G,))]

    def call() -> None:
        differential(*inputs, **where)

    assert counted("reference", call) == flops(length, M * G, E, W, maps=2, **where)
    assert counted("chunked", call) == executed_flops(length, M * G, E, W, maps=2, **where)


@pytest.mark.parametrize("options", [{"window": 128}, {"softcap": 5.0}, {"sink_logits": torch.zeros(2)}])
def test_peak_memory_is_linear_in_the_length(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in SIZES_AS_SHIPPED.items():
        monkeypatch.setattr(tiles, name, size)

    def most(s: int) -> int:
        leaves = [torch.randn(1, s, heads, 4, requires_grad=True) for heads in (2, 1, 1)]
        return peak(lambda: torch.autograd.grad(attention(*leaves, **options).sum(), leaves))

    assert most(4096) <= 2.1 * most(2048)


@pytest.mark.parametrize(("t", "s"), [(1, 1), (31, 31), (32, 32), (33, 33), (66, 66), (40, 90), (170, 200)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_window_by_torchs_fused_attention(t: int, s: int, dtype: torch.dtype) -> None:
    """Plain rows whose values are as wide as their keys."""
    inputs = [*tensors(t, s, E), torch.randn(M * G, dtype=torch.float64)]
    weight = torch.randn(B, t, M * G, E, dtype=torch.float64)
    for window in (5, 32):

        def call(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, window: int = window) -> Tensor:
            return attention(q, k, v, window=window, sink_logits=sinks)

        truth = run("reference", inputs, weight, call)
        found = run("chunked", [x.to(dtype) for x in inputs], weight.to(dtype), call)
        assert all(error(a, b) < (1e-10 if dtype == torch.float64 else 1e-5) for a, b in zip(found, truth, strict=True))


@pytest.mark.parametrize("options", [{"window": 4}, {"softcap": 5.0}])
def test_autocast_and_scattered_inputs(options: dict[str, Any]) -> None:
    q, k, v = (x.float() for x in tensors(20, 20, E))
    exact = attention(q, k, v, **options)
    scattered = attention(*(x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)), **options)
    assert error(scattered, exact) < 1e-6  # some BLAS sum in another order
    leaf = q.clone().requires_grad_()  # keys and values that need no gradient
    with torch.autocast("cpu", torch.bfloat16):
        o = attention(leaf, k, v, **options)
    assert o.dtype == torch.float32
    assert 1e-5 < error(o, exact) < 0.02
    (gradient,) = torch.autograd.grad(o.sum(), leaf)
    assert gradient.dtype == torch.float32


def test_contradictions_are_errors() -> None:
    q, k, v = tensors(4, 4)
    documents = torch.zeros(B, 4, dtype=torch.int64)
    for options in (
        {"window": 0},
        {"q_documents": documents},
        {"q_positions": documents},
        {"q_documents": documents, "k_documents": documents, "window": 2, "sink_tokens": 1},
    ):
        with pytest.raises(ValueError, match="attention: "):
            attention(q, k, v, **options)
    with pytest.raises(ValueError, match="4 queries but only 3 keys"):
        attention(q, k[:, :3], v[:, :3])
