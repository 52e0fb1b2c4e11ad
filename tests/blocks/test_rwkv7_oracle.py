"""rwkv7 against the published equations written out token by token, channel vectors only, sharing no code with the block."""

import math

import pytest
import torch
from torch import Tensor

from blocks.context import Context, advance
from blocks.errors import ConfigError
from blocks.rwkv7 import V_FIRST, Config

D, N, T, B = 16, 4, 21, 2
Weights = dict[str, Tensor]


def official(p: Weights, x: Tensor, v_first: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
    """One row x (t, d) -> y (t, d) and v before its mix, a token at a time; state S[i] is (value, key), as it is published."""
    h = D // N
    s = [torch.zeros(N, N, dtype=x.dtype) for _ in range(h)]
    before, out, values = torch.zeros(D, dtype=x.dtype), [], []
    mr, mw, mk, mv, ma, mg = p["mix"]
    for t in range(x.shape[0]):
        now = x[t]
        xr, xw, xk, xv, xa, xg = (now * (1 - m) + before * m for m in (mr, mw, mk, mv, ma, mg))
        before = now
        r, k, v = p["receptance.weight"] @ xr, p["key.weight"] @ xk, p["value.weight"] @ xv
        values.append(v)
        d = p["decay.bias"] + torch.tanh(xw @ p["decay.down"]) @ p["decay.up"]
        w = torch.exp(-math.exp(-0.5) / (1 + torch.exp(-d)))
        rate = 1 / (1 + torch.exp(-(p["rate.bias"] + xa @ p["rate.down"] @ p["rate.up"])))
        if v_first is not None:
            lam = 1 / (1 + torch.exp(-(p["value_mix.bias"] + xv @ p["value_mix.down"] @ p["value_mix.up"])))
            v = (1 - lam) * v + lam * v_first[t]
        g = (1 / (1 + torch.exp(-(xg @ p["gate.down"])))) @ p["gate.up"]
        removal = k * p["key_norm"]
        replace = k * (1 - p["key_rate"] + rate * p["key_rate"])
        heads = []
        for i in range(h):
            c = slice(i * N, (i + 1) * N)
            kappa = removal[c] / torch.sqrt((removal[c] ** 2).sum())
            change = torch.diag(w[c]) - torch.outer(kappa, rate[c] * kappa)
            s[i] = s[i] @ change + torch.outer(v[c], replace[c])
            read = s[i] @ r[c]
            read = (read - read.mean()) / torch.sqrt(((read - read.mean()) ** 2).mean() + 64e-5)
            read = read * p["norm.weight"][c] + p["norm.bias"][c]
            heads.append(read + (r[c] * p["bonus"][i] * replace[c]).sum() * v[c])
        out.append(p["output.weight"] @ (torch.cat(heads) * g))
    return torch.stack(out), values


def randomised(config: Config) -> tuple[torch.nn.Module, Weights]:
    block = config.build(D, 1, 3).double()
    with torch.no_grad():
        for p in block.parameters():
            p += torch.randn_like(p) * (D**-0.5 if p.ndim > 1 else 0.3)
    return block, dict(block.named_parameters())


@pytest.mark.parametrize("later", [False, True])
def test_published_equations(later: bool) -> None:
    block, weights = randomised(
        Config(head_dim=N, decay_rank=3, rate_rank=5, value_rank=2 if later else None, gate_rank=6, value_residual=later)
    )
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    first = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    ctx, _ = advance(None, B, T)
    if later:
        ctx.shared[V_FIRST] = first
    y, _ = block(x, None, ctx)
    rows = [official(weights, x[i], list(first[i]) if later else None) for i in range(B)]
    exact = torch.stack([row for row, _ in rows])
    if not later:
        assert torch.allclose(ctx.shared[V_FIRST], torch.stack([torch.stack(v) for _, v in rows]), atol=1e-12)
    weight = torch.randn(B, T, D, dtype=torch.float64)
    wanted = [x, *weights.values(), *([first] if later else [])]
    grads = [torch.autograd.grad((o * weight).sum(), wanted) for o in (y, exact)]
    for name, a, b in zip(["y", "x", *weights, "v_first"], (y, *grads[0]), (exact, *grads[1]), strict=False):
        error = float((a - b).detach().norm() / b.detach().norm())
        assert error < 1e-9, f"{name}: {error:.1e}"


def test_first_layer_leaves_its_v_for_the_later_ones() -> None:
    one, two = (randomised(Config(head_dim=N))[0] for _ in range(2))
    x = torch.randn(B, T, D, dtype=torch.float64)
    ctx, _ = advance(None, B, T)
    alone, _ = two(x, None, Context(ctx.positions))
    one(x, None, ctx)
    v = ctx.shared[V_FIRST]
    after, _ = two(x, None, ctx)
    assert ctx.shared[V_FIRST] is v
    assert not torch.allclose(after, alone)


def test_a_layer_that_finds_no_v_uses_its_own() -> None:
    with_mix, weights = randomised(Config(head_dim=N))
    without, _ = randomised(Config(head_dim=N, value_residual=False))
    without.load_state_dict({name: w.detach() for name, w in weights.items() if "value_mix" not in name})
    x = torch.randn(B, T, D, dtype=torch.float64)
    outputs = [block(x, None, advance(None, B, T)[0])[0] for block in (with_mix, without)]
    assert torch.equal(*outputs)


def test_official_sizes() -> None:
    """Ranks of d_model 1024, and the parameters of the released 0.4B model (ranks 64, 64, 32, 128, 24 layers, vocabulary 65536)."""
    assert Config().ranks(1024) == (64, 64, 64, 160)
    d, layers, vocab = 1024, 24, 65536
    released = {"decay_rank": 64, "rate_rank": 64, "gate_rank": 128}
    mixers = Config(**released, value_residual=False).cost(d, 1).params + (layers - 1) * Config(**released, value_rank=32).cost(d, 1).params
    channel_mix_and_norms = 8 * d * d + d + 4 * d
    assert round((2 * vocab * d + 4 * d + mixers + layers * channel_mix_and_norms) / 1e4) == 45077


def test_official_initialisation() -> None:
    d, layer, n_layers = 128, 2, 5
    block = Config().build(d, layer, n_layers).requires_grad_(False)
    for n in (0, 1, 70, 127):
        z = ((n % 64) - 31.5) / 31.5
        decay = -6 + 6 * (n / (d - 1)) ** (1 + (layer / (n_layers - 1)) ** 0.3) + 0.5 + 2.5 * z * abs(z)
        assert math.isclose(float(block.decay.bias[n]), decay, rel_tol=1e-5)
        assert math.isclose(float(block.mix[1, n]), 1 - (n / d) ** (0.9 * (1 - layer / n_layers)), rel_tol=1e-5)
        assert math.isclose(float(block.value_mix.bias[n]), 0.73 - 0.4 * (n / (d - 1) - 0.5), rel_tol=1e-5)
    assert float(block.output.weight.abs().max()) == 0
    assert math.isclose(float(block.norm.weight[0]), (3 / 5) ** 0.7, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("config", "place"),
    [(Config(head_dim=5), "head_dim"), (Config(gate_rank=0), "gate_rank"), (Config(value_rank=3, value_residual=False), "value_rank")],
)
def test_impossible_sizes_name_their_place(config: Config, place: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.check(32)
    assert error.value.place == place


@pytest.mark.parametrize(
    "config", [Config(head_dim=8, value_residual=False), Config(head_dim=16, decay_rank=3, rate_rank=4, value_rank=5, gate_rank=6)]
)
def test_contract_of_the_variants(config: Config) -> None:
    from zoo.check.contract import check_block

    check_block(config, d_model=16)
