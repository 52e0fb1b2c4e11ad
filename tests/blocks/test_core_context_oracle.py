"""The core-context block against a dense float64 form written here from the paper: 1-based positions, explicit masks."""

import pytest
import torch
from torch import Tensor

from blocks import gqa
from blocks.context import advance
from blocks.core_context import Block, Config
from blocks.errors import ConfigError
from blocks.rope import Rope
from blocks.state import state_bytes
from zoo.check.contract import check_block

D, LENGTH, GROUP, LOCAL = 24, 47, 4, 8
CONFIG = Config(n_heads=6, n_kv_heads=2, head_dim=10, group=GROUP, local=LOCAL, rope=Rope(base=100.0))


def masks(n: int, g: int, s: int) -> tuple[Tensor, Tensor]:
    """Which cores (n, cores) and which tokens (n, n) each token sees."""
    i, cores = torch.arange(1, n + 1)[:, None], max(n - s, 0) // g
    p, j = torch.arange(1, cores + 1)[None], torch.arange(1, n + 1)[None]
    far = (i > s) & (p <= (i - s).div(g, rounding_mode="floor"))
    width = torch.where(i > s, s + (i - s) % g, i)
    return far, (j <= i) & (j > i - width)


def turned(x: Tensor, base: float) -> Tensor:
    """RoPE by complex numbers: x (t, h, e), positions 0 .. t-1."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[0])[:, None] * base ** (-torch.arange(half, dtype=torch.float32) / half)
    z = torch.complex(x[..., :half], x[..., half:]) * torch.complex(angle.cos().double(), angle.sin().double())[:, None]
    return torch.cat([z.real, z.imag], -1)


def oracle(block: Block, x: Tensor) -> Tensor:
    """One document x (t, d)."""
    n, e = x.shape[0], 10
    q, k, v = ((x @ w.T).unflatten(-1, (-1, e)) for w in block.qkv.weight.split([60, 20, 20]))
    q, k, v = (y.transpose(0, 1) for y in (turned(q, 100.0), turned(k, 100.0)[:, [0, 0, 0, 1, 1, 1]], v[:, [0, 0, 0, 1, 1, 1]]))
    far, near = masks(n, GROUP, LOCAL)
    core_keys, core_values = [], []
    for p in range(far.shape[1]):
        tokens = slice(p * GROUP, (p + 1) * GROUP)
        alpha = (q[:, tokens][:, -1:] @ k[:, tokens].mT / e**0.5).softmax(-1)
        core_keys.append(alpha @ k[:, tokens])
        core_values.append(alpha @ v[:, tokens])
    keys, values = torch.cat([*core_keys, k], 1), torch.cat([*core_values, v], 1)
    scores = (q @ keys.mT / e**0.5).masked_fill(~torch.cat([far, near], 1), -torch.inf)
    return (scores.softmax(-1) @ values).transpose(0, 1).flatten(1) @ block.out.weight.T


def build() -> Block:
    block = CONFIG.build(D).double()
    with torch.no_grad():
        block.qkv.weight[:60] *= 4  # sharp enough that the cores differ
    return block


def error(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def test_the_masks_cover_every_token_once() -> None:
    far, near = masks(LENGTH, GROUP, LOCAL)
    seen = torch.cat([far.repeat_interleave(GROUP, 1), torch.zeros(LENGTH, LENGTH, dtype=torch.bool)], 1)[:, :LENGTH].long() + near
    assert torch.equal(seen, torch.ones(LENGTH, LENGTH, dtype=torch.int64).tril())


@pytest.mark.parametrize("length", [1, LOCAL, LOCAL + GROUP, LENGTH])
def test_values_and_gradients_equal_the_dense_form(length: int) -> None:
    block = build()
    x = torch.randn(1, length, D, dtype=torch.float64, requires_grad=True)
    ctx, _ = advance(None, 1, length)
    weight = torch.randn(length, D, dtype=torch.float64)
    leaves = [x, *block.parameters()]
    output, expected = block(x, None, ctx)[0][0], oracle(block, x[0])
    assert error(output, expected) < 1e-12
    gradients = zip(*(torch.autograd.grad((y * weight).sum(), leaves) for y in (output, expected)), strict=True)
    assert max(error(a, b) for a, b in gradients) < 1e-12


@pytest.mark.parametrize("sizes", [[1] * LENGTH, [LOCAL, GROUP, 1, LENGTH - LOCAL - GROUP - 1], [3] * 15 + [2]])
def test_pieces_across_group_boundaries_equal_the_dense_form(sizes: list[int]) -> None:
    block = build()
    x = torch.randn(1, LENGTH, D, dtype=torch.float64)
    outputs, state, cursor = [], None, None
    for piece in x.split(sizes, 1):
        ctx, cursor = advance(cursor, 1, piece.shape[1])
        y, state = block(piece, state, ctx)
        outputs.append(y)
    assert error(torch.cat(outputs, 1)[0], oracle(block, x[0])) < 1e-12
    assert state.cache.keys.shape[1] == LOCAL + (LENGTH - LOCAL) % GROUP
    assert state.cores.keys.shape[1] == LENGTH // GROUP


def test_packed_documents_behind_padding_in_pieces_equal_the_dense_form() -> None:
    block = build()
    x = torch.randn(2, LENGTH, D, dtype=torch.float64)
    lengths = [(0, 22, 25), (9, 3, 35)]  # padding, two documents
    documents = torch.tensor([[0] * (pad + a) + [1] * b for pad, a, b in lengths])
    padding = torch.tensor([[i < pad for i in range(LENGTH)] for pad, _, _ in lengths])
    outputs, state, cursor = [], None, None
    for cut in (slice(0, 14), slice(14, 15), slice(15, 40), slice(40, LENGTH)):
        ctx, cursor = advance(cursor, 2, documents[:, cut].shape[1], documents=documents[:, cut], padding=padding[:, cut])
        y, state = block(x[:, cut], state, ctx)
        outputs.append(y)
    output = torch.cat(outputs, 1)
    for row, (pad, a, b) in enumerate(lengths):
        for start, stop in ((pad, pad + a), (pad + a, pad + a + b)):
            assert error(output[row, start:stop], oracle(block, x[row, start:stop])) < 1e-12
    assert state.cache.keys.shape[1] <= LOCAL + GROUP - 1
    assert state.cores.keys.shape[1] == max(25, 35) // GROUP


def test_a_plain_stream_may_be_padded_later() -> None:
    """Row 1 pauses for the second piece: it goes on as if nothing had been."""
    block = build()
    x = torch.randn(2, 40, D, dtype=torch.float64)
    state, cursor = None, None
    padding = torch.tensor([[False] * 13, [True] * 13])
    for cut, pads in ((slice(0, 21), None), (slice(21, 34), padding), (slice(34, 40), None)):
        ctx, cursor = advance(cursor, 2, x[:, cut].shape[1], padding=pads)
        y, state = block(x[:, cut], state, ctx)
    paused = torch.cat([x[1, :21], x[1, 34:]])
    assert error(y[0], oracle(block, x[0])[-6:]) < 1e-12
    assert error(y[1], oracle(block, paused)[-6:]) < 1e-12


def test_weights_of_attention_serve_and_a_long_local_part_is_attention() -> None:
    attention = gqa.Config(n_heads=6, n_kv_heads=2, head_dim=10, conv=3, qk_norm="head").build(D)
    block = Config(n_heads=6, n_kv_heads=2, head_dim=10, conv=3, qk_norm="head").build(D)
    block.load_state_dict(attention.state_dict())
    x = torch.randn(2, LENGTH, D)
    ctx, _ = advance(None, 2, LENGTH)
    assert torch.allclose(block(x, None, ctx)[0], attention(x, None, ctx)[0], atol=1e-5)


def test_the_state_grows_by_a_core_a_group() -> None:
    block = CONFIG.build(D)
    state, cursor = None, None
    for n in range(1, 40):
        ctx, cursor = advance(cursor, 1, 1)
        _, state = block(torch.randn(1, 1, D), state, ctx)
        assert state_bytes(state) == CONFIG.cost(D, n).state_bytes


OPTIONS = [
    Config(group=3, local=6, n_kv_heads=2, conv=4, qk_norm="head"),
    Config(group=4, local=4, rope=None, head_dim=6),
    Config(group=4, local=8, pooling="mean"),
    Config(group=1, local=3),
]


@pytest.mark.parametrize("config", OPTIONS, ids=lambda c: f"{c.group}-{c.local}-{c.pooling}")
def test_the_contract_with_options(config: Config) -> None:
    check_block(config, d_model=32)


@pytest.mark.parametrize(
    ("sizes", "place"),
    [({"local": 100}, "local"), ({"group": 0}, "group"), ({"n_kv_heads": 3}, "n_kv_heads"), ({"pooling": "sum"}, "pooling")],
)
def test_impossible_sizes_are_told(sizes: dict[str, object], place: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Config(**sizes).check(32)  # type: ignore[arg-type]
    assert raised.value.place == place
