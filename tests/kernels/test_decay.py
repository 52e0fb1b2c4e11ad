"""decay: the chunked back end against the definition, values, final state and every gradient; its FLOPs; its promises."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import kernels
from kernels.decay import chunked, cost, decay, executed_flops, flops, spans, strong_flops

CHUNK = 8
LENGTHS = (1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 2)
NAMES = ("q", "k", "v", "g", "state", "bonus")
Inputs = dict[str, Tensor | None]


@pytest.fixture(autouse=True)
def _uninitialised_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def inputs(
    t: int,
    gate: str,
    *,
    bonus: bool = False,
    strong: bool = False,
    n: int = 2,
    b: int = 2,
    h: int = 4,
    k: int = 5,
    v: int = 7,
    queries: int | None = None,
) -> Inputs:
    """Correlated keys; strong decays are a mix of steps near 0 and steps that forget everything. queries: other than the n keys."""

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64)

    g = None if gate == "none" else -rand(b, t, h, *[k] * (gate == "vector")).abs()
    if g is not None:
        g = g * torch.where(torch.rand_like(g) < 0.3, 60.0, 0.02) if strong else 0.2 * g
    keys = rand(b, t, n, k) + 1
    return {
        "q": rand(b, t, queries or n, k),
        "k": keys,
        "v": rand(b, t, h, v),
        "g": g,
        "state": rand(b, h, k, v),
        "bonus": rand(h, k) if bonus else None,
    }


def results(backend: str, given: Inputs, reset: Tensor | None, dtype: torch.dtype) -> dict[str, Tensor]:
    """Outputs and gradients of a fixed random functional of them."""
    args = {name: None if x is None else x.to(dtype).requires_grad_() for name, x in given.items()}
    bonus = args.pop("bonus")
    with kernels.backend(backend):
        o, state = decay(**args, bonus=bonus, reset=reset, chunk=CHUNK)
    torch.manual_seed(1)
    score = sum((x * torch.randn(x.shape, dtype=torch.float64).to(dtype)).sum() for x in (o, state))
    wanted = {name: x for name, x in {**args, "bonus": bonus}.items() if x is not None}
    grads = torch.autograd.grad(score, list(wanted.values()))
    return {"o": o, "final": state, **{f"d{name}": x for name, x in zip(wanted, grads, strict=True)}}


def assert_same(got: dict[str, Tensor], right: dict[str, Tensor], tolerance: float) -> None:
    for name, x in right.items():
        error = (got[name].double() - x).norm() / (x.norm() + 1e-12)
        assert error < tolerance, f"{name}: {error:.1e}"


def resets(t: int) -> Tensor:
    """A document's start at the first token, inside a tile, at a tile's first and last token, and none at all."""
    reset = torch.zeros(2, t, dtype=torch.bool)
    reset[0, [i for i in (0, 3, CHUNK - 1, CHUNK, CHUNK + 4) if i < t]] = True
    return reset


@pytest.mark.parametrize("t", LENGTHS)
@pytest.mark.parametrize("strong", [False, True], ids=["mild", "strong"])
@pytest.mark.parametrize("packed", [False, True], ids=["one", "packed"])
@pytest.mark.parametrize("bonus", [False, True], ids=["", "bonus"])
@pytest.mark.parametrize("gate", ["none", "scalar", "vector"])
def test_chunked_is_the_definition(gate: str, bonus: bool, packed: bool, strong: bool, t: int) -> None:
    given = inputs(t, gate, bonus=bonus, strong=strong)
    reset = resets(t) if packed else None
    right = results("reference", given, reset, torch.float64)
    assert_same(results("chunked", given, reset, torch.float64), right, 1e-10)
    assert_same(results("chunked", given, reset, torch.float32), right, 1e-5)


@pytest.mark.parametrize("gate", ["scalar", "vector"])
@pytest.mark.parametrize("step", [1e-3, 0.3, 3.0, 30.0, 1e4])
def test_any_decay_at_the_default_tile(gate: str, step: float) -> None:
    given = inputs(130, gate, b=1, h=2)
    given["g"] = given["g"] * 5 * step
    kwargs = {name: x for name, x in given.items() if name != "bonus"}
    with kernels.backend("reference"):
        right = decay(**kwargs)
    for x, y in zip(decay(**{name: x.float() for name, x in kwargs.items()}), right, strict=True):
        assert (x - y).norm() / y.norm() < 1e-5


@pytest.mark.parametrize("bonus", [False, True], ids=["", "bonus"])
@pytest.mark.parametrize("gate", ["scalar", "vector"])
def test_gradients_of_every_form_of_the_default_chunk(gate: str, bonus: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decays up to and beyond what each chunk length can factor; the gate's gradient is small where all steps are strong."""
    monkeypatch.setattr(f"{__name__}.CHUNK", 64)
    for step in (1.0, 4.0, 8.0, 17.0, 30.0):
        given = inputs(130, gate, bonus=bonus, b=1, h=2)
        given["g"] = given["g"] * step
        assert_same(results("chunked", given, None, torch.float32), results("reference", given, None, torch.float64), 1e-5)


@pytest.mark.parametrize("size", [1, 1500, 5000])
@pytest.mark.parametrize("packed", [False, True], ids=["one", "packed"])
@pytest.mark.parametrize("gate", ["none", "scalar", "vector"])
def test_spans_of_any_size(gate: str, packed: bool, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One chunk of one row at a time, some chunks of some rows, several chunks of all rows."""
    monkeypatch.setattr(spans, "SPAN", size)
    given = inputs(5 * CHUNK + 3, gate, bonus=True)
    reset = resets(5 * CHUNK + 3) if packed else None
    right = results("reference", given, reset, torch.float64)
    assert_same(results("chunked", given, reset, torch.float64), right, 1e-10)
    with kernels.backend("chunked"), torch.no_grad():
        named = {name: x for name, x in given.items() if name != "bonus"}
        o, final = decay(**named, bonus=given["bonus"], reset=reset, chunk=CHUNK)
    assert_same({"o": o, "final": final}, {"o": right["o"], "final": right["final"]}, 1e-10)


@pytest.mark.parametrize("gate", ["none", "scalar", "vector"])
def test_only_what_is_asked_for(gate: str) -> None:
    """Constant gates, no first state, and a gradient that comes through the final state alone."""
    q, k, v, g = (inputs(19, gate)[name] for name in ("q", "k", "v", "g"))
    for which in (0, 1):
        grads = []
        for backend in ("reference", "chunked"):
            leaves = [x.mT.contiguous().mT.requires_grad_() for x in (k, v)]
            with kernels.backend(backend):
                result = decay(q, *leaves, g, chunk=CHUNK)[which]
            grads.append(torch.autograd.grad(result.square().sum(), leaves, allow_unused=True))
        for right, got in zip(*grads, strict=True):
            assert (right - got).norm() / right.norm() < 1e-10


@pytest.mark.parametrize("gate", ["none", "scalar", "vector"])
def test_the_form_for_any_decay_agrees_on_mild_ones(gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs(19, gate)
    right = results("reference", given, None, torch.float64)
    monkeypatch.setattr(chunked, "mild_size", lambda g, size: None)
    assert_same(results("chunked", given, None, torch.float64), right, 1e-10)


@pytest.mark.parametrize("gate", ["none", "scalar", "vector"])
def test_autocast_leaves_it_alone(gate: str) -> None:
    q, k, v, g = (None if x is None else x.float() for x in (inputs(19, gate)[name] for name in ("q", "k", "v", "g")))
    with torch.autocast("cpu", torch.bfloat16):
        o, _ = decay(q, k, v, g, chunk=CHUNK)
    assert torch.equal(o, decay(q, k, v, g, chunk=CHUNK)[0])


@pytest.mark.parametrize("backend", ["reference", "chunked"])
@pytest.mark.parametrize("gate", ["none", "scalar", "vector"])
def test_pieces_carry_the_state(backend: str, gate: str) -> None:
    x = inputs(21, gate, bonus=True)
    q, k, v, g, state, bonus = (x[name] for name in NAMES)
    reset = resets(21)
    with kernels.backend(backend):
        whole, final = decay(q, k, v, g, state, bonus=bonus, reset=reset, chunk=CHUNK)
        parts = []
        for a, b in ((0, 1), (1, 12), (12, 13), (13, 21)):
            gates = None if g is None else g[:, a:b]
            o, state = decay(q[:, a:b], k[:, a:b], v[:, a:b], gates, state, bonus=bonus, reset=reset[:, a:b], chunk=CHUNK)
            parts.append(o)
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    torch.testing.assert_close(state, final)


@pytest.mark.parametrize("gate", ["scalar", "vector"])
def test_many_steps_do_not_drift(gate: str) -> None:
    x = inputs(600, gate, b=1, h=2)
    assert x["g"] is not None
    x["g"] = x["g"] / 50  # a memory of hundreds of tokens
    with kernels.backend("reference"):
        right, final = decay(x["q"], x["k"], x["v"], x["g"], x["state"])
    low = {name: i.float() for name, i in x.items() if i is not None}
    state, out = low["state"], []
    for q, k, v, g in zip(*(low[name].split(1, 1) for name in ("q", "k", "v", "g")), strict=True):
        o, state = decay(q, k, v, g, state)
        out.append(o)
    assert (torch.cat(out, 1) - right).norm() / right.norm() < 1e-5
    assert (state - final).norm() / final.norm() < 1e-5


@pytest.mark.parametrize("backend", ["reference", "chunked"])
@pytest.mark.parametrize("gate", ["none", "scalar", "vector"])
def test_a_token_without_key_and_gate_leaves_the_state(backend: str, gate: str) -> None:
    x = inputs(5, gate)
    g = None if x["g"] is None else torch.zeros_like(x["g"])
    with kernels.backend(backend):
        _, state = decay(x["q"], torch.zeros_like(x["k"]), x["v"], g, x["state"])
    assert torch.equal(state, x["state"])


@pytest.mark.parametrize("gate", ["none", "scalar", "vector"])
@pytest.mark.parametrize("t", [1, 9, 64, 130])
def test_flops_are_what_runs(gate: str, t: int) -> None:
    h, k, v, n = 4, 5, 7, 2
    given = inputs(t, gate, b=1)
    given.pop("bonus")
    leaf = None
    for strong in (False, True):
        if strong and gate == "vector":
            given["g"], leaf = given["g"] - 100, 1
        for backend, expected in (
            ("reference", flops(t, h, k, v)),
            ("chunked", executed_flops(t, h, k, v, groups=n, gate=gate, leaf=leaf)),
        ):
            with kernels.backend(backend), FlopCounterMode(display=False) as counter:
                decay(**given)
            assert counter.get_total_flops() == expected


@pytest.mark.parametrize("gate", ["none", "scalar", "vector"])
@pytest.mark.parametrize("t", [1, 9, 33, 64, 130])
@pytest.mark.parametrize("queries", [None, 8])
def test_flops_follow_the_decays(gate: str, t: int, queries: int | None) -> None:
    """Of decays from mild ones to those that no chunk can factor, by equality: in shorter chunks, in leaves, never above the most."""
    n, heads = (2 if queries is None else 4), queries or 4
    given = inputs(t, gate, b=1, n=n, queries=queries)
    given.pop("bonus")
    sizes, shared = (t, heads, 5, 7), {"groups": n if queries is None else None, "gate": gate}
    most, cuts = executed_flops(*sizes, **shared, leaf=cost.exact.tile(min(64, t), gate)), set()
    for scale in (0.01, 4, 12, 20, 100):
        g = None if given["g"] is None else given["g"] * scale
        cuts.add(cost.chunks(g, t))
        with kernels.backend("chunked"), FlopCounterMode(display=False) as counter:
            decay(**given | {"g": g})
        spent = executed_flops(*sizes, **shared) + strong_flops(**given | {"g": g})
        assert counter.get_total_flops() == spent <= most
    assert len(cuts) >= (1 if gate == "none" or t == 1 else 2 if t < 64 else 3)
    assert gate != "scalar" or t == 1 or spent == most


def alone(given: Inputs, queries: int) -> Inputs:
    """Every query with a memory of its own: keys, values, decays, state and bonus repeated."""
    axis = {"k": 2, "v": 2, "g": 2, "state": 1, "bonus": 0}
    return {name: x if x is None or name == "q" else x.repeat_interleave(queries, axis[name]) for name, x in given.items()}


@pytest.mark.parametrize("t", LENGTHS)
@pytest.mark.parametrize("packed", [False, True], ids=["one", "packed"])
@pytest.mark.parametrize("bonus", [False, True], ids=["", "bonus"])
@pytest.mark.parametrize("gate", ["none", "scalar", "vector"])
def test_queries_that_share_a_memory_read_what_each_would_read_alone(gate: str, bonus: bool, packed: bool, t: int) -> None:
    given = inputs(t, gate, bonus=bonus, n=2, h=2, queries=6)
    reset = resets(t) if packed else None
    right = results("reference", given, reset, torch.float64)
    with kernels.backend("reference"):
        o, state = decay(**alone(given, 3), reset=reset)
    assert_same(right, {"o": o, "final": state[:, ::3]}, 1e-12)
    assert right["final"].shape == (2, 2, 5, 7)
    assert_same(results("chunked", given, reset, torch.float64), right, 1e-10)
    assert_same(results("auto", given, reset, torch.float64), right, 1e-10)


@pytest.mark.parametrize("gate", ["none", "scalar", "vector"])
@pytest.mark.parametrize("t", [1, 9, 130])
def test_flops_of_queries_that_share_a_memory(gate: str, t: int) -> None:
    """The definition writes a memory once, the chunked back end once a query."""
    given = inputs(t, gate, b=1, n=2, h=2, queries=6)
    given.pop("bonus")
    needed = 2 * t * (2 + 6) * 5 * 7
    assert flops(t, 2, 5, 7, queries=6) == needed
    for backend, expected in (("reference", needed), ("chunked", executed_flops(t, 6, 5, 7, gate=gate))):
        with kernels.backend(backend), FlopCounterMode(display=False) as counter:
            decay(**given)
        assert counter.get_total_flops() == expected


def test_half_precision_keeps_a_wide_state() -> None:
    x = inputs(9, "vector")
    low = [x[name].bfloat16() for name in ("q", "k", "v", "g")]
    o, state = decay(*low)
    right, _ = decay(*(y.double() for y in low))
    assert o.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    assert (o.double() - right).norm() / right.norm() < 5e-3


def test_what_cannot_be_is_refused() -> None:
    x = inputs(3, "none", n=3)
    with pytest.raises(ValueError, match="3 groups"):
        decay(x["q"], x["k"], x["v"])
    for sizes in ({"n": 2, "queries": 8}, {"n": 4, "queries": 6}):
        x = inputs(3, "none", **sizes)
        with pytest.raises(ValueError, match="don't share the memories"):
            decay(x["q"], x["k"], x["v"])
    x = inputs(3, "none", n=2, queries=4)
    with pytest.raises(ValueError, match="4 groups of q and 2 of k"):
        decay(x["q"], x["k"], x["v"])
    x = inputs(3, "none")
    with pytest.raises(ValueError, match="chunk = 0"):
        decay(x["q"], x["k"], x["v"], chunk=0)
