"""The delta rule: chunked against the step-by-step definition, the definition against other people's, and its FLOPs."""

from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import kernels
from kernels import delta as kernel
from kernels.delta import chunked, chunks, reference
from kernels.delta.triangular import inverse
from tests.oracle import fla

B, H, K, V, C = 2, 3, 5, 7, 16
GATES = ("none", "scalar", "vector", "dplr")


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64)


def difference(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().double(), b.detach()
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


def arguments(kind: str, t: int, *, decay: float = 1.0, alike: float = 0.0) -> list[Tensor | None]:
    """Positional arguments of delta or dplr. Log decays are mostly weak and at times -decay; alike pulls all keys to one direction."""
    q, v, state = randn(B, t, H, K), randn(B, t, H, V), randn(B, H, K, V)
    key = F.normalize(randn(B, t, H, K) + alike, dim=-1)
    if kind == "dplr":
        rate = rand(B, t, H, K)
        return [q, -decay * rand(B, t, H, K) ** 4, randn(B, t, H, K), v, -key, key * rate, state]
    g = {"none": None, "scalar": -decay * rand(B, t, H) ** 4, "vector": -decay * rand(B, t, H, K) ** 4}[kind]
    return [q, key, v, g, 2 * rand(B, t, H), state]


def results(
    backend: ModuleType, kind: str, args: list[Tensor | None], reset: Tensor | None, dtype: torch.dtype, chunk: int
) -> list[Tensor]:
    """o, the last state and the gradients of every argument, the state included."""
    args = [None if a is None else a.to(dtype).requires_grad_() for a in args]
    o, s = (backend.dplr if kind == "dplr" else backend.delta)(*args, reset=reset, chunk=chunk)
    weights = [torch.linspace(-1, 1, x.numel(), dtype=torch.float64).cos().view(x.shape).to(dtype) for x in (o, s)]
    loss = (o * weights[0]).sum() + (s * weights[1]).sum()
    return [o, s, *torch.autograd.grad(loss, [a for a in args if a is not None])]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("t", [1, C - 1, C, C + 1, 2 * C + 2])
@pytest.mark.parametrize("kind", GATES)
def test_chunked_is_the_reference(kind: str, t: int, packed: bool) -> None:
    for decay, alike, chunk in ((1.0, 0.0, C), (30.0, 10.0, 2 * C)):  # 2 * C: blocks of the inverse are joined
        args = arguments(kind, t, decay=decay, alike=alike)
        reset = rand(B, t) < 0.2 if packed else None
        exact = results(reference, kind, args, reset, torch.float64, chunk)
        for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
            found = results(chunked, kind, args, reset, dtype, chunk)
            assert max(difference(a, b) for a, b in zip(found, exact, strict=True)) < tolerance


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", GATES)
def test_tiles_and_rows_that_walk_apart(kind: str, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows than walk together, more chunks than a tile has, a last tile that is not full; strong decays in some of them."""
    monkeypatch.setattr(chunks, "TILE", 2 * H)
    monkeypatch.setattr(chunks, "STEP", H)
    args = arguments(kind, 5 * C + 3, decay=3.0)
    gates = 1 if kind == "dplr" else 3
    decays = args[gates]
    if decays is not None:
        args[gates] = torch.cat([decays[:, : 2 * C], 10 * decays[:, 2 * C :]], 1)
    reset = rand(B, 5 * C + 3) < 0.1 if packed else None
    exact = results(reference, kind, args, reset, torch.float64, C)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        found = results(chunked, kind, args, reset, dtype, C)
        assert max(difference(a, b) for a, b in zip(found, exact, strict=True)) < tolerance


@pytest.mark.parametrize("kind", GATES)
def test_any_strides_and_inputs_without_gradients(kind: str) -> None:
    args = arguments(kind, C + 3)
    run = kernel.dplr if kind == "dplr" else kernel.delta
    turned = [None if a is None else a.transpose(0, 1).contiguous().transpose(0, 1) for a in args]
    o, s = run(*args)
    assert difference(run(*turned)[0], o) < 1e-12
    v = args[3 if kind == "dplr" else 2]
    assert v is not None
    v.requires_grad_()
    (alone,) = torch.autograd.grad((run(*args)[0] ** 2).sum(), v)
    given = [a.requires_grad_() for a in args if a is not None]
    together = torch.autograd.grad((run(*args)[0] ** 2).sum(), given)
    assert difference(alone, together[[a is v for a in given].index(True)]) < 1e-12
    with torch.no_grad():
        assert not run(*args)[1].requires_grad
        assert torch.equal(run(*args)[1], s)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("decay", [0.0, 12.0, 200.0])
def test_identical_keys_and_extreme_decays_in_float32(kind: str, decay: float) -> None:
    args = arguments(kind, 130, decay=decay, alike=1e6)
    gates = 1 if kind == "dplr" else 3
    if args[gates] is not None:
        args[gates] = torch.full_like(args[gates], -decay)
    exact = results(reference, kind, args, None, torch.float64, 64)
    found = results(chunked, kind, args, None, torch.float32, 64)
    assert all(x.isfinite().all() for x in found)
    scale = max(float(x.detach().norm()) for x in exact)
    for a, b in zip(found, exact, strict=True):
        if float(b.detach().norm()) > 1e-20 * scale:  # under a decay of exp(-200) its own gradient is 0
            assert difference(a, b) < 1e-5


@pytest.mark.parametrize("kind", GATES)
def test_long_text_does_not_drift(kind: str) -> None:
    args = arguments(kind, 520, decay=0.05)
    operation = "dplr" if kind == "dplr" else "delta"
    exact_o, exact_s = getattr(reference, operation)(*args)
    o, s = getattr(chunked, operation)(*(None if a is None else a.float() for a in args))
    assert difference(o, exact_o) < 1e-5
    assert difference(s, exact_s) < 1e-5


@pytest.mark.parametrize("kind", GATES)
def test_pieces_and_the_document_before(kind: str) -> None:
    """A piece after a piece = the whole; a reset at a piece's first token forgets the state that came in."""
    args = arguments(kind, 40)
    run = kernel.dplr if kind == "dplr" else kernel.delta
    cut = lambda s: [None if a is None else a[:, s] for a in args[:-1]]  # noqa: E731
    whole, last = run(*args)
    first, state = run(*cut(slice(0, 19)), args[-1])
    second, state = run(*cut(slice(19, 40)), state)
    assert difference(torch.cat([first, second], 1), whole) < 1e-12
    assert difference(state, last) < 1e-12
    reset = torch.zeros(B, 40, dtype=torch.bool).index_fill(1, torch.tensor(0), True)
    assert difference(run(*args, reset=reset)[0], run(*args[:-1])[0]) < 1e-12


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("t", [1, 5, 16, 64, 100])
def test_flops_are_counted_exactly(kind: str, t: int) -> None:
    args = [None if a is None else a.float() for a in arguments(kind, t)]
    if kind == "dplr":
        run, needed, spent = kernel.dplr, kernel.dplr_flops(t, H, K, V), kernel.dplr_executed_flops(t, H, K, V)
    else:
        vector = kind == "vector"
        run, needed, spent = kernel.delta, kernel.flops(t, H, K, V), kernel.executed_flops(t, H, K, V, vector=vector)
    for backend, expected in (("reference", needed), ("chunked", spent)):
        with kernels.backend(backend), FlopCounterMode(display=False) as counter:
            run(*args)
        assert counter.get_total_flops() == B * expected


@pytest.mark.parametrize("kind", GATES)
def test_low_precision_inputs_keep_a_float32_state(kind: str) -> None:
    args = [None if a is None else a.bfloat16() for a in arguments(kind, 20)[:-1]]
    run = kernel.dplr if kind == "dplr" else kernel.delta
    with torch.autocast("cpu", torch.bfloat16):
        o, state = run(*args)
        exact, exact_state = run(*(None if a is None else a.double() for a in args))
    assert (o.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert difference(state, exact_state) < 1e-5
    assert difference(o, exact) < 1e-2


def test_chunk_must_be_a_power_of_two() -> None:
    with pytest.raises(ValueError, match="chunk = 12: must be a power of two"):
        kernel.delta(*arguments("none", 3), chunk=12)


@pytest.mark.parametrize("c", [1, 2, 8, 32, 128])
def test_inverse_is_that_of_a_triangular_solve(c: int) -> None:
    a = randn(4, c, 2 * c)[:, :, c:]  # only what is below the diagonal counts
    one = torch.eye(c, dtype=torch.float64)
    exact = torch.linalg.solve_triangular(one - a.tril(-1), one.expand(4, c, c), upper=False, unitriangular=True)
    assert difference(inverse(a), exact) < 1e-9


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_naive_functions_of_fla(kind: str, backend: str) -> None:
    args = [None if a is None else a.float().requires_grad_() for a in arguments(kind, 40)]
    swap = lambda x: x.transpose(1, 2)  # noqa: E731
    with kernels.backend(backend):
        ours = (kernel.dplr if kind == "dplr" else kernel.delta)(*args)
    theirs = _fla(kind, args)
    if kind in ("none", "dplr"):
        theirs = (swap(theirs[0]), theirs[1])
    weight = torch.randn(ours[0].shape)
    given = [a for a in args if a is not None]
    grads = [torch.autograd.grad((o * weight).sum() + s.square().sum(), given) for o, s in (ours, theirs)]
    for a, b in zip((*ours, *grads[0]), (*theirs, *grads[1]), strict=True):
        assert difference(a, b.double()) < 3e-6


def _fla(kind: str, args: list[Tensor | None]) -> tuple[Tensor, Tensor]:
    """fla's naive function of the operation, undoing its scale of q."""
    if kind == "dplr":
        q, w, k, v, a, b, state = args
        heads_first = [x.transpose(1, 2) for x in (q * K**0.5, k, v, a, b, w)]
        return fla("generalized_delta_rule/dplr/naive.py").dplr_recurrence(*heads_first, initial_state=state)
    q, k, v, g, beta, state = args
    if kind == "none":
        heads_first = [x.transpose(1, 2) for x in (q * K**0.5, k, v, beta)]
        return fla("delta_rule/naive.py").delta_rule_recurrence(*heads_first, initial_state=state)
    if kind == "scalar":
        naive = fla("gated_delta_rule/naive.py").naive_recurrent_gated_delta_rule
        return naive(q, k, v, beta, g, scale=1.0, initial_state=state, output_final_state=True)
    return fla("kda/naive.py").naive_recurrent_kda(q, k, v, g, beta, scale=1.0, initial_state=state, output_final_state=True)


@pytest.mark.parametrize("name", ["torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule"])
def test_hugging_face_gated_delta_rule(name: str) -> None:
    from transformers.models.qwen3_next import modeling_qwen3_next as hf

    q, k, v, g, beta, state = (None if a is None else a.float() for a in arguments("scalar", 70))
    exact, last = getattr(hf, name)(q, k, v, g, beta, initial_state=state, output_final_state=True)
    o, s = kernel.delta(q * K**-0.5, k, v, g, beta, state)
    assert difference(o, exact.double()) < 3e-6
    assert difference(s, last.double()) < 3e-6
