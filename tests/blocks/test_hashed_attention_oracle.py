"""Hashed attention against its definition: float64, one query after the other, written here from the equations."""

import pytest
import torch
from torch import Tensor

from blocks.context import advance
from blocks.errors import ConfigError
from blocks.hashed_attention import Block, Config
from tests.oracle import error, moved
from zoo.check.contract import check_block

D, LENGTH = 12, 41
BOTH = Config(n_heads=2, head_dim=5, hashed=3, selected=4, bits=2, conv=0)


def bucket(u: Tensor, projection: Tensor) -> list[bool]:
    return (u @ projection > 0).tolist()


def scored(block: Block, q: Tensor, k: Tensor) -> Tensor:
    """The score (t,) of the keys of one head."""
    total = q.cumsum(0)
    first, _, second, _, third = block.scorer
    hidden = torch.cat([k, total / total.norm(dim=-1, keepdim=True)], -1)
    for layer in (first, second):
        hidden = (hidden @ layer.weight.T + layer.bias).clamp(min=0)
    return (hidden @ third.weight.T)[:, 0]


def seen(config: Config, i: int, q: Tensor, k: Tensor, scores: Tensor, projection: Tensor | None) -> list[int]:
    """The keys that query i sees."""
    visible: set[int] = set()
    if projection is not None:
        same = [j for j in range(i + 1) if bucket(k[j], projection) == bucket(q[i], projection)]
        visible |= set(same[-config.hashed :])
    best = sorted(range(i + 1), key=lambda j: (-float(scores[j]), j))
    return sorted(visible | set(best[: config.selected]))


def head(block: Block, h: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One head of one document: q, k, v (t, e)."""
    config = block.config
    scores = scored(block, q, k) if config.selected else torch.zeros(len(k), dtype=k.dtype)
    projection = block.projection[h] if config.hashed else None
    out = []
    for i in range(len(q)):
        places = seen(config, i, q, k, scores.detach(), projection)
        if not places:
            out.append(torch.zeros_like(v[0]))
            continue
        weight = torch.exp(k[places] @ q[i] / k.shape[-1] ** 0.5)
        if config.selected:
            weight = weight / (1 + torch.exp(-scores[places]))
        out.append((weight / weight.sum()) @ v[places])
    return torch.stack(out)


def oracle(block: Block, x: Tensor) -> Tensor:
    """One document x (t, d), no convolution."""
    e, heads = block.e, block.config.n_heads
    q, k, v = ((x @ w.T).unflatten(-1, (heads, e)) for w in block.qkv.weight.split(heads * e))
    return torch.cat([head(block, h, q[:, h], k[:, h], v[:, h]) for h in range(heads)], -1) @ block.out.weight.T


def build(config: Config = BOTH) -> Block:
    torch.manual_seed(3)
    return moved(config.build(D, 1, 3).double())  # type: ignore[return-value]


HALVES = {"both": BOTH, "hash": Config(n_heads=2, head_dim=5, hashed=3, selected=0, bits=2, conv=0)}
HALVES["selection"] = Config(n_heads=1, head_dim=6, hashed=0, selected=4, conv=0)


@pytest.mark.parametrize("half", HALVES)
def test_values_and_gradients_equal_the_definition(half: str) -> None:
    block = build(HALVES[half])
    x = torch.randn(1, LENGTH, D, dtype=torch.float64, requires_grad=True)
    ctx, _ = advance(None, 1, LENGTH)
    leaves, weight = [x, *block.parameters()], torch.randn(LENGTH, D, dtype=torch.float64)
    output, expected = block(x, None, ctx)[0][0], oracle(block, x[0])
    assert error(output, expected) < 1e-12
    gradients = list(zip(*(torch.autograd.grad((y * weight).sum(), leaves) for y in (output, expected)), strict=True))
    assert max(error(a, b) for a, b in gradients) < 1e-11
    assert all(bool(a.any()) for a, _ in gradients)  # the scorer's too: it learns from the loss of the model


def test_packed_documents_behind_padding_in_pieces_equal_the_definition() -> None:
    block = build()
    x = torch.randn(2, LENGTH, D, dtype=torch.float64)
    lengths = [(0, 17, 24), (9, 20, 12)]  # padding, two documents
    documents = torch.tensor([[0] * (pad + a) + [1] * b for pad, a, b in lengths])
    padding = torch.tensor([[i < pad for i in range(LENGTH)] for pad, _, _ in lengths])
    outputs, state, cursor = [], None, None
    for cut in (slice(0, 14), slice(14, 15), slice(15, LENGTH)):
        ctx, cursor = advance(cursor, 2, documents[:, cut].shape[1], documents=documents[:, cut], padding=padding[:, cut])
        y, state = block(x[:, cut], state, ctx)
        outputs.append(y)
    output = torch.cat(outputs, 1)
    for row, (pad, a, b) in enumerate(lengths):
        for start, stop in ((pad, pad + a), (pad + a, pad + a + b)):
            assert error(output[row, start:stop], oracle(block, x[row, start:stop])) < 1e-12


def test_what_sees_nothing_is_zero_with_a_finite_gradient() -> None:
    block = build(Config(n_heads=1, hashed=2, selected=0, bits=8, conv=0))
    x = torch.randn(1, 6, D, dtype=torch.float64, requires_grad=True)
    y, _ = block(x, None, advance(None, 1, 6)[0])
    q, k, _ = (x[0] @ w.T for w in block.qkv.weight.split(D))
    alone = [not seen(block.config, i, q, k, torch.zeros(6), block.projection[0]) or None for i in range(6)]
    empty = [i for i in range(6) if alone[i]]
    assert empty
    assert not y[0, empty].any()
    assert bool(torch.isfinite(torch.autograd.grad(y.sum(), x)[0]).all())


def test_a_budget_of_everything_is_causal_attention() -> None:
    block = build(Config(n_heads=1, hashed=0, selected=LENGTH, conv=0))
    with torch.no_grad():
        block.scorer[-1].weight.zero_()  # all keys score the same
    x = torch.randn(1, LENGTH, D, dtype=torch.float64)
    q, k, v = (x @ w.T for w in block.qkv.weight.split(D))
    o = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert error(block(x, None, advance(None, 1, LENGTH)[0])[0], o @ block.out.weight.T) < 1e-12


def test_the_hash_is_fixed_saved_and_not_trained() -> None:
    block, x = build(), torch.randn(1, LENGTH, D, dtype=torch.float64)
    ctx, _ = advance(None, 1, LENGTH)
    assert torch.equal(block(x, None, ctx)[0], block(x, None, ctx)[0])
    assert "projection" in block.state_dict()
    assert "projection" not in dict(block.named_parameters())
    torch.manual_seed(4)
    other = BOTH.build(D, 1, 3).double()
    assert not torch.equal(other.projection, block.projection)
    other.load_state_dict(block.state_dict())
    assert torch.equal(other(x, None, ctx)[0], block(x, None, ctx)[0])


@pytest.mark.parametrize("half", HALVES)
def test_the_contract_with_options(half: str) -> None:
    check_block(HALVES[half], d_model=12)


WRONG = {
    "n_heads": {"n_heads": 5},
    "bits": {"bits": 9},
    "hashed": {"hashed": 0, "selected": 0},
    "selected": {"selected": -1},
    "conv": {"conv": 1},
}


@pytest.mark.parametrize(("place", "sizes"), WRONG.items())
def test_impossible_sizes_are_told(place: str, sizes: dict[str, int]) -> None:
    with pytest.raises(ConfigError) as raised:
        Config(**sizes).check(32)
    assert raised.value.place == place
