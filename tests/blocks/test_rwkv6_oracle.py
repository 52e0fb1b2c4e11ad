"""RWKV-6's time mixer: its equations token by token in plain float64, its recurrence against flash-linear-attention's naive one."""

import pytest
import torch
from torch import Tensor

from blocks.context import advance
from blocks.errors import ConfigError
from blocks.rwkv6 import Block, Config
from kernels import backend
from kernels.decay import decay
from tests.oracle import fla

D, E, LENGTH, BATCH = 12, 4, 23, 2


def error(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().norm() / b.detach().norm().clamp(min=1e-30))


def scrambled() -> Block:
    """A block in float64 of which every parameter matters."""
    block = Config(head_dim=E, mix_rank=3, decay_rank=5).build(D, 1, 3).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return block


def published(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    """One text x (t, d) by the paper's equations, a token and a head at a time. Returns y (t, d) and the memory (h, k, v)."""
    h, rank = D // E, block.mix_up.shape[1]
    memory = [torch.zeros(E, E, dtype=x.dtype) for _ in range(h)]
    before, out = torch.zeros(D, dtype=x.dtype), []
    for now in x:
        moved = torch.tanh((now + (before - now) * block.mix_x) @ block.mix_down)
        mixed = {}
        for i, name in enumerate("wkvrg"):
            amount = block.mix[i] + moved[i * rank : (i + 1) * rank] @ block.mix_up[i]
            mixed[name] = now + (before - now) * amount
        w = torch.exp(-torch.exp(block.decay + torch.tanh(mixed["w"] @ block.decay_down) @ block.decay_up))
        r, k, v = block.receptance.weight @ mixed["r"], block.key.weight @ mixed["k"], block.value.weight @ mixed["v"]
        heads = []
        for i in range(h):
            at = slice(i * E, (i + 1) * E)
            written = k[at, None] * v[None, at]
            o = r[at] @ (memory[i] + block.bonus[i][:, None] * written)
            memory[i] = w[at, None] * memory[i] + written
            centred = o - o.mean()
            heads.append(centred / torch.sqrt((centred**2).mean() + 64e-5) * block.norm.weight[at] + block.norm.bias[at])
        gate = block.gate.weight @ mixed["g"]
        out.append(block.output.weight @ (torch.cat(heads) * gate / (1 + torch.exp(-gate))))
        before = now
    return torch.stack(out), torch.stack(memory)


@pytest.mark.parametrize("backend_name", ["reference", "chunked"])
def test_the_published_equations(backend_name: str) -> None:
    """Values, the state, and the gradients of the input and of every parameter."""
    block = scrambled()
    x = torch.randn(BATCH, LENGTH, D, dtype=torch.float64, requires_grad=True)
    with backend(backend_name):
        y, state = block(x, None, advance(None, BATCH, LENGTH)[0])
    rows = [published(block, row) for row in x]
    expected, memory = (torch.stack(parts) for parts in zip(*rows, strict=True))
    assert error(y, expected) < 1e-10
    assert error(state.memory, memory) < 1e-10
    assert torch.equal(state.shift, x[:, -1:])
    weight, leaves = torch.randn_like(y), [x, *block.parameters()]
    grads = [torch.autograd.grad((out * weight).sum(), leaves) for out in (y, expected)]
    for a, b in zip(*grads, strict=True):
        assert float(b.norm()) > 0
        assert error(a, b) < 1e-9


def test_float32_keeps_its_digits() -> None:
    block = scrambled()
    x = torch.randn(BATCH, 150, D, dtype=torch.float64)
    ctx = advance(None, BATCH, 150)[0]
    with torch.no_grad():
        exact, _ = block(x, None, ctx)
        y, _ = block.float()(x.float(), None, ctx)
    assert error(y.double(), exact) < 1e-5


@pytest.mark.parametrize("backend_name", ["reference", "chunked"])
def test_the_recurrence_is_flas(backend_name: str) -> None:
    naive = fla("rwkv6/recurrent_naive.py")
    b, t, h, k, v = 2, 37, 3, 4, 5
    shapes = [(b, t, h, k), (b, t, h, k), (b, t, h, v), (b, t, h, k), (h, k), (b, h, k, v)]
    q, key, value, g, u, first = (torch.randn(s) for s in shapes)
    leaves = [i.requires_grad_() for i in (q, key, value, -g.exp(), u, first)]
    swapped = [i.transpose(1, 2) for i in leaves[:4]]
    expected_o, last = naive.naive_recurrent_rwkv6(*swapped, leaves[4], scale=1.0, initial_state=leaves[5], output_final_state=True)
    with backend(backend_name):
        o, state = decay(*leaves[:4], leaves[5], bonus=leaves[4])
    assert error(o, expected_o.transpose(1, 2)) < 1e-6
    assert error(state, last) < 1e-6
    weight = torch.randn_like(o)
    mine = torch.autograd.grad((o * weight).sum() + state.sum(), leaves)
    expected = torch.autograd.grad((expected_o.transpose(1, 2) * weight).sum() + last.sum(), leaves)
    for x, y in zip(mine, expected, strict=True):
        assert error(x, y) < 1e-5


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_the_official_start(layer: int) -> None:
    """Every element by the published formula, in plain numbers."""
    d, layers = 128, 4
    block = Config().build(d, layer, layers)
    depth, late = layer / (layers - 1), 1 - layer / layers
    same = [1 - (i / d) ** late for i in range(d)]
    half = [1 - (i / d) ** (0.5 * late) for i in range(d)]
    for actual, expected in (
        (block.mix_x, same),
        (block.mix[0], same),
        (block.mix[1], same),
        (block.mix[2], [m - 0.3 * depth for m in same]),
        (block.mix[3], half),
        (block.mix[4], half),
        (block.decay, [-6 + 5 * (i / (d - 1)) ** (0.7 + 1.3 * depth) for i in range(d)]),
        (block.bonus.flatten(), [depth * (1 - i / (d - 1)) + ((i + 1) % 3 - 1) * 0.1 for i in range(d)]),
        (block.norm.weight, [((1 + layer) / layers) ** 0.7] * d),
        (block.norm.bias, [0.0] * d),
    ):
        assert torch.allclose(actual.detach(), torch.tensor(expected), atol=1e-6)
    assert block.bonus.shape == (2, 64)
    for zero in (block.mix_down, block.decay_down, block.output.weight):
        assert not zero.any()
    for small in (block.mix_up, block.decay_up):
        assert 0.0099 < float(small.detach().abs().max()) <= 0.01
    for linear, gain in ((block.receptance, 1.0), (block.key, 0.1), (block.value, 1.0), (block.gate, 0.1)):
        weight = linear.weight.detach()
        assert torch.allclose(weight @ weight.t(), gain**2 * torch.eye(d), atol=1e-5)


def test_very_strong_decay_is_finite() -> None:
    """A decay of exp(-exp(20)) forgets all; it is neither NaN nor does it spoil a gradient."""
    block = Config(head_dim=E).build(D)
    with torch.no_grad():
        block.output.weight.normal_()
        block.decay[::2] = 20
    x = torch.randn(BATCH, 70, D, requires_grad=True)
    y, state = block(x, None, advance(None, BATCH, 70)[0])
    grads = torch.autograd.grad(y.sum(), [x, *block.parameters()])
    assert all(bool(torch.isfinite(i).all()) for i in (y, state.memory, *grads))


def test_impossible_sizes_are_named() -> None:
    for config, place in ((Config(head_dim=5), "head_dim"), (Config(mix_rank=0), "mix_rank"), (Config(decay_rank=0), "decay_rank")):
        with pytest.raises(ConfigError) as caught:
            config.check(D)
        assert caught.value.place == place
    assert Config().width(32) == 32
    assert Config().width(256) == 64
