"""Short convolution and token shift: the rooms against each other, against torch's Conv1d, packed, padded and in pieces."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from kernels import backend
from kernels.conv import conv, flops, previous

B, C, W = 3, 5, 4  # pairwise different
ROOMS = ("reference", "chunked")


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


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("width", [2, W])
@pytest.mark.parametrize("t", [1, 2, 3, 9])
def test_conv_is_conv1d_after_the_state(room: str, t: int, width: int) -> None:
    """Values and every gradient; the state goes before the piece."""
    tensors = inputs(t, width)
    weights = torch.randn(B, t, C, dtype=torch.float64), torch.randn(B, width - 1, C, dtype=torch.float64)

    mine = [i.clone().requires_grad_() for i in tensors]
    with backend(room):
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
def test_rooms_agree(t: int, padded: bool, packed: bool, with_state: bool) -> None:
    tensors = inputs(t) if with_state else inputs(t)[:-1]
    options = {"reset": resets(t) if packed else None, "pads": pads(t) if padded else None}
    real = (torch.arange(t) >= (pads(t) if padded else torch.zeros(B))[:, None])[..., None]  # outputs at padding are free
    weights = torch.randn(B, t, C, dtype=torch.float64) * real, torch.randn(B, W - 1, C, dtype=torch.float64)
    results = []
    for room in ROOMS:
        leaves = [i.clone().requires_grad_() for i in tensors]
        with backend(room):
            y, state = conv(*leaves, **options)
        results.append([y * real, state, *torch.autograd.grad((y * weights[0]).sum() + (state * weights[1]).sum(), leaves)])
    for a, b in zip(*results, strict=True):
        assert error(a, b) < 1e-12


@pytest.mark.parametrize("room", ROOMS)
def test_pieces_are_the_whole(room: str) -> None:
    x, weight, bias, state = inputs(11)
    reset = resets(11)
    with backend(room):
        whole, last = conv(x, weight, bias, state, reset=reset)
        for sizes in ([4, 1, 6], [1] * 11):
            out, now = [], state
            for piece, starts in zip(x.split(sizes, 1), reset.split(sizes, 1), strict=True):
                y, now = conv(piece, weight, bias, now, reset=starts)
                out.append(y)
            assert error(torch.cat(out, 1), whole) < 1e-12
            assert error(now, last) < 1e-12


@pytest.mark.parametrize("room", ROOMS)
def test_packed_documents_are_each_alone(room: str) -> None:
    x, weight, bias, _ = inputs(9)
    reset = torch.zeros(B, 9, dtype=torch.bool)
    reset[:, [2, 3, 7]] = True
    with backend(room):
        y, state = conv(x, weight, bias, reset=reset)
        alone = [conv(part, weight, bias) for part in x.split([2, 1, 4, 2], 1)]
    assert error(y, torch.cat([part for part, _ in alone], 1)) < 1e-12
    assert torch.equal(state, alone[-1][1])


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("packed", [False, True])
def test_pads_in_mid_stream_change_nothing(room: str, packed: bool) -> None:
    """Each row of a padded piece goes on as if its padding were not there, whatever the padding holds."""
    t = 6
    x, weight, bias, state = inputs(t)
    reset = torch.zeros(B, t, dtype=torch.bool)
    if packed:
        reset[0, 4] = reset[1, 2] = True  # row 1: at its first real token
    for before in (state, None):
        with backend(room):
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
    for room in ROOMS:
        with backend(room):
            y, after = conv(x.float(), weight.float(), bias.float(), state.float())
            assert (y.dtype, after.dtype) == (torch.float32, torch.float32)
            assert error(y.double(), exact) < 1e-6
            y, after = conv(*(i.bfloat16() for i in (x, weight, bias)), state.float())
            assert (y.dtype, after.dtype) == (torch.bfloat16, torch.float32)
            assert error(y.double(), exact) < 0.02


@pytest.mark.parametrize("t", [1, 9])
def test_cost_is_what_is_spent(t: int) -> None:
    x, weight, bias, state = inputs(t)
    for room, expected in (("reference", flops(t, C, W)), ("chunked", 0)):
        with backend(room), FlopCounterMode(display=False) as counter:
            conv(x[:1], weight, bias, state[:1])
        assert counter.get_total_flops() == expected


@pytest.mark.parametrize("room", ROOMS)
def test_conv_is_that_of_transformers(room: str) -> None:
    """Mamba's convolution with its SiLU, whole and as one step from a state."""
    modeling = pytest.importorskip("transformers.models.mamba.modeling_mamba")
    x, weight, bias, state = (i.float() for i in inputs(9))
    with backend(room):
        y, after = conv(x, weight, bias)
        step, _ = conv(x[:, :1], weight, bias, state)
    theirs = modeling.causal_conv1d_fn(x.transpose(1, 2), weight, bias, activation="silu").transpose(1, 2)
    assert error(F.silu(y), theirs) < 1e-6
    assert torch.equal(after, x[:, -(W - 1) :])
    theirs = modeling.causal_conv1d_update(x[:, :1].transpose(1, 2), state.transpose(1, 2).contiguous(), weight, bias, "silu")
    assert error(F.silu(step), theirs.transpose(1, 2)) < 1e-6
