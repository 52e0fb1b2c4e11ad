"""linear_scan and selective_scan: the chunked back end against the definition, the definition against others' code, the cost."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import kernels
from kernels.linear_scan import executed_flops, flops, linear_scan, selective_scan
from tests.oracle import fla

CHUNK = 7
LENGTHS = (1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 2)
B, C, N = 2, 5, 3  # pairwise different
Op = Callable[..., tuple[Tensor, Tensor]]


@pytest.fixture(autouse=True)
def _uninitialised_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def linear_inputs(t: int, strength: float = 1.0) -> list[Tensor]:
    """a, x, state."""
    return [-strength * randn(B, t, C).exp(), randn(B, t, C), randn(B, C)]


def selective_inputs(t: int, strength: float = 1.0) -> list[Tensor]:
    """x, dt, A, B, C, state; keys alike from token to token, as trained ones are."""
    key = randn(B, 1, N) + 0.1 * randn(B, t, N)
    return [randn(B, t, C), randn(B, t, C).exp(), -strength * randn(C, N).exp(), key, randn(B, t, N), randn(B, C, N)]


def resets(t: int) -> Tensor:
    """In the first row inside chunks, two in a row; in the second at the first and the last token."""
    reset = torch.zeros(B, t, dtype=torch.bool)
    reset[0, 2:4] = True
    reset[0, CHUNK + 2 :: CHUNK] = True
    reset[1, 0] = reset[1, -1] = True
    return reset


def error(a: Tensor, b: Tensor) -> float:
    return float((a.detach().double() - b.detach()).norm() / b.detach().norm().clamp(min=1e-30))


def run(op: Op, backend: str, inputs: list[Tensor], *, autocast: bool = False, **options: Any) -> list[Tensor]:
    """The output, the state, and the gradient of every input."""
    leaves = [i.detach().clone().requires_grad_() for i in inputs]
    with kernels.backend(backend), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y, state = op(*leaves, **options)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(i.shape, generator=generator, dtype=torch.float64).to(i.dtype) for i in (y, state)]
    loss = (y * weights[0]).sum() + (state * weights[1]).sum()
    return [y.detach(), state.detach(), *torch.autograd.grad(loss, leaves)]


CASES = [(linear_scan, linear_inputs), (selective_scan, selective_inputs)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("t", LENGTHS)
def test_backends_agree_on_more_decay(t: int, packed: bool) -> None:
    options = {"more": -0.3 * torch.rand(B, t, dtype=torch.float64), "reset": resets(t) if packed else None, "chunk": CHUNK}
    inputs = selective_inputs(t)
    right = run(selective_scan, "reference", inputs, **options)
    for a, b in zip(run(selective_scan, "chunked", inputs, **options), right, strict=True):
        assert error(a, b) < 1e-10
    assert error(run(selective_scan, "reference", inputs, **options | {"more": None})[0], right[0]) > 1e-3


def test_more_decay_is_a_factor_of_the_state() -> None:
    """Without steps and inputs a token leaves its factor of the state."""
    x, dt, A, key, query, state = selective_inputs(4)
    more = torch.tensor([[0.0, -0.5, 0.0, -0.25], [0.0, 0.0, 0.0, 0.0]]).double()
    for backend in ("reference", "chunked"):
        with kernels.backend(backend):
            _, after = selective_scan(x, torch.zeros_like(dt), A, key, query, state, more=more)
        assert error(after, state * torch.tensor([-0.75, 0.0]).double().exp()[:, None, None]) < 1e-12


@pytest.mark.parametrize("chunk", [CHUNK, 1, None])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("t", LENGTHS)
@pytest.mark.parametrize(("op", "inputs"), CASES)
def test_backends_agree(op: Op, inputs: Callable[..., list[Tensor]], t: int, packed: bool, chunk: int | None) -> None:
    options = {"reset": resets(t) if packed else None, "chunk": chunk}
    tensors = inputs(t)
    for a, b in zip(run(op, "chunked", tensors, **options), run(op, "reference", tensors, **options), strict=True):
        assert error(a, b) < 1e-10


@pytest.mark.parametrize("strength", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("op", "inputs"), CASES)
def test_float32_keeps_its_digits(op: Op, inputs: Callable[..., list[Tensor]], packed: bool, strength: float) -> None:
    t = 3 * CHUNK + 2
    reset = resets(t) if packed else None
    tensors = [i.float() for i in inputs(t, strength)]
    truth = run(op, "reference", [i.double() for i in tensors], reset=reset)
    for chunk in (CHUNK, None):
        for a, b in zip(run(op, "chunked", tensors, reset=reset, chunk=chunk), truth, strict=True):
            assert a.dtype == torch.float32
            assert error(a, b) < 1e-5


@pytest.mark.parametrize(("op", "inputs"), CASES)
def test_a_state_can_start_and_needs_no_gradient(op: Op, inputs: Callable[..., list[Tensor]]) -> None:
    tensors = inputs(9)
    for backend in ("reference", "chunked"):
        with kernels.backend(backend), torch.no_grad():
            none, zero = op(*tensors[:-1]), op(*tensors[:-1], torch.zeros_like(tensors[-1]))
        for a, b in zip(none, zero, strict=True):
            assert torch.equal(a, b)
            assert not a.requires_grad


def test_a_token_without_decay_and_input_leaves_the_state() -> None:
    a, x, state = linear_inputs(4)
    _, after = linear_scan(torch.zeros_like(a), torch.zeros_like(x), state)
    assert torch.equal(after, state)
    x, dt, A, key, query, state = selective_inputs(4)
    _, after = selective_scan(x, torch.zeros_like(dt), A, key, query, state)
    assert torch.equal(after, state)


def test_600_steps_do_not_drift() -> None:
    """Token by token in float32, against the whole in float64."""
    x, dt, A, key, query, state = selective_inputs(600)
    whole, last = selective_scan(x, 0.01 * dt, A, key, query, state)
    now, out = state.float(), []
    for i in range(600):
        at = slice(i, i + 1)
        y, now = selective_scan(x[:, at].float(), 0.01 * dt[:, at].float(), A.float(), key[:, at].float(), query[:, at].float(), now)
        out.append(y)
    assert error(torch.cat(out, 1), whole) < 1e-5
    assert error(now, last) < 1e-5


def test_training_keeps_few_states() -> None:
    """What the graph holds grows with the tokens, not with tokens x channels x states."""
    t, c, n = 512, 8, 64
    held: list[int] = []
    leaves = [torch.rand(1, t, c), torch.rand(1, t, c), -torch.rand(c, n), torch.rand(1, t, n), torch.rand(1, t, n)]
    with torch.autograd.graph.saved_tensors_hooks(lambda s: held.append(s.numel()) or s, lambda s: s):
        selective_scan(*(i.requires_grad_() for i in leaves), chunk=32)
    assert 0 < sum(held) < t * c * n / 2


def test_autocast_does_not_reach_the_scan() -> None:
    inputs = [i.float() for i in selective_inputs(20)]
    plain = run(selective_scan, "chunked", inputs)
    for backend in ("reference", "chunked"):
        cast = run(selective_scan, backend, inputs, autocast=True)
        assert all(error(a, b.double()) < 1e-5 for a, b in zip(cast, plain, strict=True))


def test_bfloat16_activations_keep_a_float32_state() -> None:
    inputs = [i.float() for i in selective_inputs(9)]
    x, dt, A, key, query, _ = inputs
    y, state = selective_scan(x.bfloat16(), dt, A, key.bfloat16(), query.bfloat16())
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    h, state = linear_scan(-dt.bfloat16(), x.bfloat16())
    assert (h.dtype, state.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize("t", [1, 20])
def test_cost_is_what_is_spent(t: int) -> None:
    for backend, expected in (("reference", flops(t, C, N)), ("chunked", executed_flops(t, C, N))):
        x, dt, A, key, query, state = selective_inputs(t)
        with kernels.backend(backend), FlopCounterMode(display=False) as counter:
            selective_scan(x[:1], dt[:1], A, key[:1], query[:1], state[:1])
            linear_scan(-dt, x)
        assert counter.get_total_flops() == expected


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_linear_scan_is_hgrn_of_fla(backend: str) -> None:
    naive = fla("hgrn/naive.py").naive_recurrent_hgrn
    a, x, state = (i.float() for i in linear_inputs(20))
    leaves = [i.clone().requires_grad_() for i in (a, x)]
    theirs, last = naive(leaves[1], leaves[0], initial_state=state, output_final_state=True)
    weight = torch.randn_like(theirs)
    grads = torch.autograd.grad((theirs * weight).sum(), leaves)
    mine = [i.clone().requires_grad_() for i in (a, x)]
    with kernels.backend(backend):
        h, after = linear_scan(*mine, state)
    assert error(h, theirs.double()) < 1e-6
    assert error(after, last.double()) < 1e-6
    for p, q in zip(torch.autograd.grad((h * weight).sum(), mine), grads, strict=True):
        assert error(p, q.double()) < 1e-5


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_selective_scan_is_that_of_transformers(backend: str) -> None:
    modeling = pytest.importorskip("transformers.models.mamba.modeling_mamba")
    leaves = [i.float().requires_grad_() for i in selective_inputs(20)[:-1]]
    x, dt, A, key, query = leaves
    swapped = [i.transpose(1, 2) for i in (x, dt, key, query)]
    theirs, last = modeling.mamba_selective_scan(swapped[0], swapped[1], A, swapped[2], swapped[3], return_last_state=True)
    weight = torch.randn(B, 20, C)
    expected = torch.autograd.grad((theirs.transpose(1, 2) * weight).sum(), leaves, retain_graph=True)
    with kernels.backend(backend):
        y, after = selective_scan(*leaves)
    assert error(y, theirs.transpose(1, 2).double()) < 1e-6
    assert error(after, last.double()) < 1e-6
    for p, q in zip(torch.autograd.grad((y * weight).sum(), leaves), expected, strict=True):
        assert error(p, q.double()) < 1e-5
