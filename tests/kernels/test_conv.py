"""Short convolution and token shift: the back ends against each other, against torch's Conv1d, packed, padded and in pieces."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import kernels
from kernels.conv import chunked, conv, flops, previous

B, C, W = 3, 5, 4  # pairwise different
BACKENDS = ("reference", "chunked")


@pytest.fixture(autouse=True)
def _uninitialised_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def inputs(t: int, width: int = W) -> list[Tensor]:
    """x, weight, bias, state."""
    return [torch.randn(s, dtype=torch.float64) for s in ((B, t, C), (C, width), (C,), (B, width - 1, C))]


def error(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().norm() / b.detach().norm().clamp(min=1e-30))


def resets(t: int) -> Tensor:
    """Rows without, with two near each other, with one at the first and one at the last token."""
    reset = torch.zeros(B, t, dtype=torch.bool)
    reset[1, 1:3] = True
    reset[2, 0] = reset[2, -1] = True
    return reset


def pads(t: int) -> Tensor:
    """None, some, all of a row."""
    return torch.tensor([0, min(2, t), t])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [2, W])
@pytest.mark.parametrize("t", [1, 2, 3, 9])
def test_conv_is_conv1d_after_the_state(backend: str, t: int, width: int) -> None:
    """Values and every gradient; the state goes before the piece."""
    tensors = inputs(t, width)
    weights = torch.randn(B, t, C, dtype=torch.float64), torch.randn(B, width - 1, C, dtype=torch.float64)

    mine = [i.clone().requires_grad_() for i in tensors]
    with kernels.backend(backend):
        y, after = conv(*mine)
    grads = torch.autograd.grad((y * weights[0]).sum() + (after * weights[1]).sum(), mine)

    x, weight, bias, state = theirs = [i.clone().requires_grad_() for i in tensors]
    full = torch.cat([state, x], 1)
    expected = F.conv1d(full.transpose(1, 2), weight[:, None], bias, groups=C).transpose(1, 2)
    last = full[:, t:]
    expected_grads = torch.autograd.grad((expected * weights[0]).sum() + (last * weights[1]).sum(), theirs)
    for a, b in zip([y, after, *grads], [expected, last, *expected_grads], strict=True):
        assert error(a, b) < 1e-12


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("t", [1, 2, 3, 4, 9])
def test_backends_agree(t: int, padded: bool, packed: bool, with_state: bool) -> None:
    compare(t, padded, packed, with_state, "silu" if t % 2 else "none")


@pytest.mark.parametrize("tile", [1, C, 4 * C, 20 * C])  # shorter than the filter; tiles of tokens; tiles of rows
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("t", [9, 13])
def test_tiles_agree(t: int, padded: bool, packed: bool, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked, "TILE", tile)
    compare(t, padded, packed, True, "silu")
    compare(t, padded, packed, packed, "none", bias=False)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("with_state", [False, True])
def test_what_a_compiler_gets_agrees(packed: bool, with_state: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    compare(9, True, packed, with_state, "silu")
    compare(2, False, packed, with_state, "none", bias=False)


def compare(t: int, padded: bool, packed: bool, with_state: bool, activation: str, bias: bool = True) -> None:
    """Values, the state after and every gradient, the state's too, in both back ends."""
    x, weight, b, start = inputs(t)
    places = {0: x, 1: weight, **({2: b} if bias else {}), **({3: start} if with_state else {})}
    options = {"reset": resets(t) if packed else None, "pads": pads(t) if padded else None, "activation": activation}
    real = (torch.arange(t) >= (pads(t) if padded else torch.zeros(B))[:, None])[..., None]  # outputs at padding are free
    weights = torch.randn(B, t, C, dtype=torch.float64) * real, torch.randn(B, W - 1, C, dtype=torch.float64)
    results = []
    for backend in BACKENDS:
        leaves = {i: tensor.clone().requires_grad_() for i, tensor in places.items()}
        with kernels.backend(backend):
            y, state = conv(*(leaves.get(i) for i in range(4)), **options)
        grads = torch.autograd.grad((y * weights[0]).sum() + (state * weights[1]).sum(), list(leaves.values()))
        results.append([y * real, state, *grads])
    for a, b in zip(*results, strict=True):
        assert error(a, b) < 1e-12


@pytest.mark.parametrize("activation", ["none", "silu"])
@pytest.mark.parametrize("packed", [False, True])
def test_gradcheck(packed: bool, activation: str) -> None:
    leaves = [i[:2].requires_grad_() if i.shape[0] == B else i.requires_grad_() for i in inputs(5)]
    reset = resets(5)[1:] if packed else None
    assert torch.autograd.gradcheck(lambda *i: conv(*i, reset=reset, activation=activation), leaves)


def test_only_what_needs_a_gradient_gets_one() -> None:
    x, weight, bias, state = (i.requires_grad_() for i in inputs(6))
    dy = torch.randn(B, 6, C, dtype=torch.float64)
    grads = torch.autograd.grad(conv(x, weight, bias, state, activation="silu")[0], (x, weight), dy)
    frozen = conv(x.detach(), weight, bias.detach(), state.detach(), activation="silu")[0]
    assert torch.equal(torch.autograd.grad(frozen, weight, dy)[0], grads[1])
    frozen = conv(x, weight.detach(), bias.detach(), activation="none")[0]
    assert torch.autograd.grad(frozen, x, dy)[0].shape == x.shape
    with torch.no_grad():
        y, after = conv(x, weight, bias, state)
    assert not y.requires_grad
    assert not after.requires_grad


def test_the_state_holds_no_more_than_itself() -> None:
    """No view of the piece: it would keep all of it in memory."""
    for t in (1, 2, 9):
        x, weight, _, state = (i.float() for i in inputs(t))
        for before in (state, None):
            after = conv(x, weight, None, before)[1]
            assert after.untyped_storage().nbytes() == after.nbytes


def test_an_unknown_activation_is_an_error() -> None:
    with pytest.raises(ValueError, match="activation 'relu' is not one of none, silu"):
        conv(*inputs(2), activation="relu")


@pytest.mark.parametrize("backend", BACKENDS)
def test_pieces_are_the_whole(backend: str) -> None:
    x, weight, bias, state = inputs(11)
    reset = resets(11)
    with kernels.backend(backend):
        whole, last = conv(x, weight, bias, state, reset=reset)
        for sizes in ([4, 1, 6], [1] * 11):
            out, now = [], state
            for piece, starts in zip(x.split(sizes, 1), reset.split(sizes, 1), strict=True):
                y, now = conv(piece, weight, bias, now, reset=starts)
                out.append(y)
            assert error(torch.cat(out, 1), whole) < 1e-12
            assert error(now, last) < 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_documents_are_each_alone(backend: str) -> None:
    x, weight, bias, _ = inputs(9)
    reset = torch.zeros(B, 9, dtype=torch.bool)
    reset[:, [2, 3, 7]] = True
    with kernels.backend(backend):
        y, state = conv(x, weight, bias, reset=reset)
        alone = [conv(part, weight, bias) for part in x.split([2, 1, 4, 2], 1)]
    assert error(y, torch.cat([part for part, _ in alone], 1)) < 1e-12
    assert torch.equal(state, alone[-1][1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("packed", [False, True])
def test_pads_in_mid_stream_change_nothing(backend: str, packed: bool) -> None:
    """Each row of a padded piece goes on as if its padding were not there, whatever the padding holds."""
    t = 6
    x, weight, bias, state = inputs(t)
    reset = torch.zeros(B, t, dtype=torch.bool)
    if packed:
        reset[0, 4] = reset[1, 2] = True  # row 1: at its first real token
    for before in (state, None):
        with kernels.backend(backend):
            y, after = conv(x, weight, bias, before, reset=reset if packed else None, pads=pads(t))
            for row, skip in enumerate(pads(t).tolist()):
                one = slice(row, row + 1)
                past = None if before is None else before[one]
                if skip == t:
                    assert torch.equal(after[one], torch.zeros_like(after[one]) if past is None else past)
                    continue
                alone, last = conv(x[one, skip:], weight, bias, past, reset=reset[one, skip:] if packed else None)
                assert error(y[one, skip:], alone) < 1e-12
                assert torch.equal(after[one], last)


def test_previous_is_a_convolution_with_one_tap_behind() -> None:
    for padded, packed in ((False, False), (True, False), (False, True), (True, True)):
        x, _, _, state = inputs(7, 2)
        options = {"reset": resets(7) if packed else None, "pads": pads(7) if padded else None}
        behind = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(C, 2)
        expected, last = conv(x, behind, None, state, **options)
        before, after = previous(x, state, **options)
        real = torch.arange(7) >= (pads(7) if padded else torch.zeros(B))[:, None]
        assert torch.equal(before[real], expected[real])
        assert torch.equal(after, last)


def test_dtypes() -> None:
    """y is of x's dtype, the state is float32 or float64; bfloat16 stays close to float64."""
    x, weight, bias, state = inputs(9)
    exact, _ = conv(x, weight, bias, state)
    for backend in BACKENDS:
        with kernels.backend(backend):
            y, after = conv(x.float(), weight.float(), bias.float(), state.float())
            assert (y.dtype, after.dtype) == (torch.float32, torch.float32)
            assert error(y.double(), exact) < 1e-6
            y, after = conv(*(i.bfloat16() for i in (x, weight, bias)), state.float())
            assert (y.dtype, after.dtype) == (torch.bfloat16, torch.float32)
            assert error(y.double(), exact) < 0.02


@pytest.mark.parametrize("activation", ["none", "silu"])
def test_autocast(activation: str) -> None:
    """Computed in float32 from the bfloat16 input and rounded once; gradients come in the dtype of what they are of."""
    x, weight, bias, state = (i.float().requires_grad_() for i in inputs(9))
    half, dy = x.detach().bfloat16().requires_grad_(), torch.randn(B, 9, C).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y, after = conv(half, weight, bias, state, activation=activation)
        grads = torch.autograd.grad(y, (half, weight, bias, state), dy)
    leaves = [i.detach().double().requires_grad_() for i in (half, weight, bias, state.bfloat16())]
    exact, _ = conv(*leaves, activation=activation)
    assert (y.dtype, after.dtype) == (torch.bfloat16, torch.float32)
    assert error(y.double(), exact) < 4e-3
    for a, b, leaf in zip(grads, torch.autograd.grad(exact, leaves, dy.double()), (half, weight, bias, state), strict=True):
        assert a.dtype == leaf.dtype
        assert error(a.double(), b) < 4e-3


@pytest.mark.parametrize("t", [1, 9])
def test_cost_is_what_is_spent(t: int) -> None:
    x, weight, bias, state = inputs(t)
    for backend, expected in (("reference", flops(t, C, W)), ("chunked", 0)):
        with kernels.backend(backend), FlopCounterMode(display=False) as counter:
            conv(x[:1], weight, bias, state[:1])
        assert counter.get_total_flops() == expected


@pytest.mark.parametrize("backend", BACKENDS)
def test_conv_is_that_of_transformers(backend: str) -> None:
    """Mamba's convolution with its SiLU, whole and as one step from a state."""
    modeling = pytest.importorskip("transformers.models.mamba.modeling_mamba")
    x, weight, bias, state = (i.float() for i in inputs(9))
    with kernels.backend(backend):
        y, after = conv(x, weight, bias, activation="silu")
        step, _ = conv(x[:, :1], weight, bias, state, activation="silu")
    theirs = modeling.causal_conv1d_fn(x.transpose(1, 2), weight, bias, activation="silu").transpose(1, 2)
    assert error(y, theirs) < 1e-6
    assert torch.equal(after, x[:, -(W - 1) :])
    theirs = modeling.causal_conv1d_update(x[:, :1].transpose(1, 2), state.transpose(1, 2).contiguous(), weight, bias, "silu")
    assert error(step, theirs.transpose(1, 2)) < 1e-6
