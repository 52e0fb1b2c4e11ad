"""Bounded memories: the window by state difference against the masked definition, the limited state against its own sentence."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import kernels
from kernels.decay import decay, executed_flops, flops
from kernels.decay.limited import limited
from kernels.decay.window import masked, window
from tests.kernels.test_decay import Inputs, alone, assert_same, inputs

SIZE, CHUNK = 6, 8
LENGTHS = (1, SIZE - 1, SIZE, SIZE + 1, 2 * SIZE + 2, 40)
GATES = ("none", "scalar", "vector")


def resets(t: int) -> Tensor:
    """Documents shorter and longer than the window, one that begins with the text and one of a single token; none in the second row."""
    reset = torch.zeros(2, t, dtype=torch.bool)
    reset[0, [i for i in (0, 3, SIZE, SIZE + 1, 3 * SIZE) if i < t]] = True
    return reset


def results(given: Inputs, reset: Tensor | None, dtype: torch.dtype, *, definition: bool = False, size: int = SIZE) -> dict[str, Tensor]:
    """Outputs and gradients of a fixed random functional of them, from the start of a text."""
    args = {name: x.to(dtype).requires_grad_() for name, x in given.items() if x is not None and name != "state"}
    if definition:
        o, state = masked(**args, size=size, reset=reset)
    else:
        o, state, _ = window(**args, size=size, reset=reset, chunk=CHUNK)
    torch.manual_seed(1)
    score = sum((x * torch.randn(x.shape, dtype=torch.float64).to(dtype)).sum() for x in (o, state))
    grads = torch.autograd.grad(score, list(args.values()), materialize_grads=True, allow_unused=True)
    return {"o": o, "final": state, **{f"d{name}": x for name, x in zip(args, grads, strict=True)}}


@pytest.mark.parametrize("t", LENGTHS)
@pytest.mark.parametrize("packed", [False, True], ids=["one", "packed"])
@pytest.mark.parametrize("bonus", [False, True], ids=["", "bonus"])
@pytest.mark.parametrize("gate", GATES)
def test_the_difference_of_two_states_is_the_window(gate: str, bonus: bool, packed: bool, t: int) -> None:
    given = inputs(t, gate, bonus=bonus)
    reset = resets(t) if packed else None
    right = results(given, reset, torch.float64, definition=True)
    assert_same(results(given, reset, torch.float64), right, 1e-10)
    assert_same(results(given, reset, torch.float32), right, 1e-5)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_any_window(size: int, gate: str) -> None:
    given = inputs(40, gate, strong=True)
    right, got = (results(given, None, torch.float64, definition=yes, size=size) for yes in (True, False))
    if size == 1 and gate != "none":  # nothing decays in a window of one token: there is no relative error of a zero
        assert bool((right.pop("dg") == 0).all())
        assert got["dg"].norm() < 1e-9
    assert_same(got, right, 1e-10)
    if size == 1000:
        o, state = decay(*(given[name] for name in "qkvg"))
        assert_same({"o": o, "final": state}, {name: right[name] for name in ("o", "final")}, 1e-10)


@pytest.mark.parametrize("gate", GATES)
def test_pieces_carry_the_window(gate: str) -> None:
    x = inputs(40, gate, bonus=True)
    q, k, v, g, bonus = (x[name] for name in ("q", "k", "v", "g", "bonus"))
    reset, parts = resets(40), []
    whole, final, last = window(q, k, v, g, size=SIZE, bonus=bonus, reset=reset, chunk=CHUNK)
    state = recent = None
    for a, b in ((0, 1), (1, 12), (12, 13), (13, 15), (15, 40)):
        gates = None if g is None else g[:, a:b]
        here = (q[:, a:b], k[:, a:b], v[:, a:b], gates, state, recent)
        o, state, recent = window(*here, size=SIZE, bonus=bonus, reset=reset[:, a:b], chunk=CHUNK)
        parts.append(o)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(state, final, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(recent, last, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("gate", GATES)
def test_a_window_does_not_drift(gate: str) -> None:
    """Steps and pieces of a text of many windows, in float32."""
    x = inputs(3000, gate, b=1, h=2)
    q, k, v, g = (x[name] for name in "qkvg")
    if g is not None:
        g = g / 50  # a memory of hundreds of tokens
    right = [window(q, k, v, g, size=64)[0]]
    tail = [None if i is None else i[:, -300:] for i in (q, k, v, g)]
    torch.testing.assert_close(right[0][:, -200:], masked(*tail, size=64)[0][:, -200:], rtol=1e-9, atol=1e-9)
    for piece in (1, 500):
        state = recent = None
        out = []
        for parts in zip(*(i.float().split(piece, 1) for i in (q, k, v)), *([] if g is None else [g.float().split(piece, 1)]), strict=True):
            here = parts if g is not None else (*parts, None)
            o, state, recent = window(*here, state, recent, size=64)
            out.append(o)
        assert (torch.cat(out, 1) - right[0]).norm() / right[0].norm() < 1e-5


def test_the_decay_of_a_window_is_exact_far_into_a_text() -> None:
    """What r decays leave is found from running sums, whose rounding must not grow with them."""
    q, k, v = (torch.ones(1, 20000, 1, 1) for _ in range(3))
    g = torch.full((1, 20000, 1), -0.7)
    o, _, _ = window(q, k, v, g, size=3)
    right = 1 + torch.tensor(-0.7).double().exp() + torch.tensor(-1.4).double().exp()
    assert abs(float(o[0, -1, 0, 0]) / float(right) - 1) < 1e-6


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("t", [1, 9, 130])
def test_a_window_costs_two_decays(gate: str, t: int) -> None:
    given = {name: x for name, x in inputs(t, gate, b=1).items() if name not in ("bonus", "state")}
    for backend, expected in (("reference", flops(t, 4, 5, 7)), ("chunked", executed_flops(t, 4, 5, 7, groups=2, gate=gate))):
        with kernels.backend(backend), FlopCounterMode(display=False) as counter:
            window(**given, size=SIZE)
        assert counter.get_total_flops() == 2 * expected


def limited_by_hand(given: Inputs, limit: float, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """Every token is one decay of length 1 by the reference; then each head's state is measured and scaled."""
    state, out = given["state"], []
    q, k, v, g = (given[name] for name in "qkvg")
    for i in range(v.shape[1]):
        at = slice(i, i + 1)
        here = (q[:, at], k[:, at], v[:, at], None if g is None else g[:, at], state)
        fresh = None if reset is None else reset[:, at]
        with kernels.backend("reference"):
            o, state = decay(*here, bonus=given["bonus"], reset=fresh)
        factor = torch.stack([torch.stack([min(torch.ones(()).double(), limit / head.norm()) for head in row]) for row in state])
        state = state * factor[..., None, None]
        if given["bonus"] is None:
            with kernels.backend("reference"):
                zero = torch.zeros_like(q[:, at])
                o, _ = decay(q[:, at], zero, v[:, at], None, state)
        out.append(o)
    return torch.cat(out, 1), state


@pytest.mark.parametrize("packed", [False, True], ids=["one", "packed"])
@pytest.mark.parametrize("bonus", [False, True], ids=["", "bonus"])
@pytest.mark.parametrize("gate", GATES)
def test_limited_is_scaled_after_every_token(gate: str, bonus: bool, packed: bool) -> None:
    given = inputs(17, gate, bonus=bonus)
    reset = resets(17) if packed else None
    got, right = [], []
    for found, call in ((got, limited), (right, limited_by_hand)):
        leaves = {name: None if x is None else x.clone().requires_grad_() for name, x in given.items()}
        o, state = limited(**leaves, limit=9.0, reset=reset) if call is limited else limited_by_hand(leaves, 9.0, reset)
        norms = state.norm(dim=(2, 3))
        assert bool((norms < 9 + 1e-9).all())
        wanted = [x for x in leaves.values() if x is not None]
        found += [o, state, *torch.autograd.grad(o.square().sum() + state.sum(), wanted)]
    for a, b in zip(got, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_a_limit_that_is_never_reached_changes_nothing() -> None:
    given = {name: x for name, x in inputs(30, "scalar").items() if name != "bonus"}
    with kernels.backend("reference"):
        right = decay(**given)
    got = limited(**given, limit=1e6)
    assert all(torch.equal(a, b) for a, b in zip(got, right, strict=True))
    assert not torch.allclose(limited(**given, limit=5.0)[0], right[0], rtol=0.1)


@pytest.mark.parametrize("gate", GATES)
def test_queries_may_share_a_memory(gate: str) -> None:
    """Windows and limits read what every query would read with a memory of its own."""
    given = inputs(23, gate, n=2, h=2, queries=6, bonus=True)
    own = alone(given, 3)
    o, state = limited(**given, limit=9.0)
    right, repeated = limited(**own, limit=9.0)
    torch.testing.assert_close((o, state), (right, repeated[:, ::3]), rtol=1e-12, atol=1e-12)
    given, own = given | {"state": None}, own | {"state": None}
    o, state, recent = window(**given, size=SIZE)
    right, repeated, _ = window(**own, size=SIZE)
    torch.testing.assert_close((o, state), (right, repeated[:, ::3]), rtol=1e-9, atol=1e-9)
    gates = {"none": 0, "scalar": 2, "vector": 10}[gate]
    assert recent.shape == (2, SIZE, 2 * 5 + 2 * 7 + gates)


def test_limited_costs_the_recurrence() -> None:
    given = {name: x for name, x in inputs(9, "scalar", b=1).items() if name != "bonus"}
    with FlopCounterMode(display=False) as counter:
        limited(**given, limit=1.0)
    assert counter.get_total_flops() == flops(9, 4, 5, 7)
