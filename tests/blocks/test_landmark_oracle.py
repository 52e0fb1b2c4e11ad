"""The landmark block against a dense float64 form of the paper's grouped softmax, written here from its definition."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from blocks.context import LANDMARK, TEXT, advance
from blocks.errors import ConfigError
from blocks.landmark import Block, Config
from blocks.rope import Rope
from blocks.state import state_bytes
from kernels import backend
from kernels.attention import SDPA_FLOPS
from zoo.check.contract import check_block

D, LENGTH = 24, 41
CONFIG = Config(n_heads=6, n_kv_heads=2, head_dim=10, rope=Rope(base=100.0))


def grouped_softmax(scores: Tensor, groups: Tensor, masked: Tensor) -> Tensor:
    """softmax of each row (.., n) inside the sets of equal group, masked entries 0."""
    live = scores.masked_fill(masked, -torch.inf)
    weights = torch.zeros_like(scores)
    for group in groups.unique().tolist():
        inside = (groups == group) & ~masked
        weights = weights + torch.nan_to_num(live.masked_fill(~inside, -torch.inf).softmax(-1))
    return weights


def dense(scores: Tensor, marks: Tensor, top_k: int | None) -> Tensor:
    """The attention weights (h, t, t) of one document with landmarks `marks` (t) from its scores (h, t, t)."""
    n = marks.shape[0]
    block = marks.cumsum(0) - marks.long()
    query, key = block[:, None], block[None, :]
    closing = marks[None, :].expand(n, n)
    future = torch.arange(n)[None, :] > torch.arange(n)[:, None]
    main = (~closing & (key == query)) | (closing & (key < query))
    masked = (future | (closing & (key == query))).expand_as(scores)
    if top_k is not None:
        masked = masked | dropped(scores, marks, block, top_k)
    weights = grouped_softmax(scores, torch.where(main, -1, key).expand_as(scores), masked)
    landmark_of = torch.zeros(n, n, dtype=scores.dtype)  # from a landmark to the keys of the block it closes
    for j in range(n):
        landmark_of[j] = ((block == block[j]) & ~marks & marks[j]).to(scores.dtype)
    gate = (weights * (closing & main)) @ landmark_of
    return torch.where(closing, 0.0, torch.where(main, weights, gate * weights))


def dropped(scores: Tensor, marks: Tensor, block: Tensor, top_k: int) -> Tensor:
    """Landmarks that a query and head does not choose: (h, t, t)."""
    out = torch.zeros_like(scores, dtype=torch.bool)
    for h in range(scores.shape[0]):
        for i in range(scores.shape[1]):
            past = [j for j in range(i) if marks[j] and block[j] < block[i]]
            worst_first = sorted(past, key=lambda j: (float(scores[h, i, j].detach()), -j))
            out[h, i, worst_first[: max(len(past) - top_k, 0)]] = True
    return out


def turned(x: Tensor, base: float) -> Tensor:
    """RoPE by complex numbers: x (t, h, e), positions 0 .. t-1."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[0])[:, None] * base ** (-torch.arange(half, dtype=torch.float32) / half)
    z = torch.complex(x[..., :half], x[..., half:]) * torch.complex(angle.cos().double(), angle.sin().double())[:, None]
    return torch.cat([z.real, z.imag], -1)


def oracle(block: Block, x: Tensor, marks: Tensor, top_k: int | None) -> Tensor:
    """One document x (t, d)."""
    q, k, v = ((x @ w.T).unflatten(-1, (-1, 10)) for w in block.qkv.weight.split([60, 20, 20]))
    q, k = turned(q, 100.0), turned(k, 100.0)
    k, v = (y[:, [0, 0, 0, 1, 1, 1]] for y in (k, v))
    scores = q.transpose(0, 1) @ k.permute(1, 2, 0) / 10**0.5
    return (dense(scores, marks, top_k) @ v.transpose(0, 1)).transpose(0, 1).flatten(1) @ block.out.weight.T


def build(top_k: int | None = None) -> Block:
    block = Config(**{**vars(CONFIG), "top_k": top_k}).build(D).double()
    with torch.no_grad():
        block.qkv.weight[:60] *= 4  # sharp enough that the blocks differ
    return block


def kinds(length: int, every: int = 5) -> Tensor:
    return torch.where(torch.arange(length) % (every + 1) == every, LANDMARK, TEXT)[None]


def error(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("top_k", [None, 2])
def test_values_and_gradients_equal_the_dense_form(top_k: int | None) -> None:
    block = build(top_k)
    x = torch.randn(1, LENGTH, D, dtype=torch.float64, requires_grad=True)
    ctx, _ = advance(None, 1, LENGTH, kinds=kinds(LENGTH))
    weight = torch.randn(LENGTH, D, dtype=torch.float64)
    leaves = [x, *block.parameters()]
    output, expected = block(x, None, ctx)[0][0], oracle(block, x[0], ctx.kinds[0] == LANDMARK, top_k)
    assert error(output, expected) < 1e-12
    gradients = zip(*(torch.autograd.grad((y * weight).sum(), leaves) for y in (output, expected)), strict=True)
    assert max(error(a, b) for a, b in gradients) < 1e-12


def test_packed_documents_behind_padding_in_pieces_equal_the_dense_form() -> None:
    block = build(top_k=2)
    x = torch.randn(2, LENGTH, D, dtype=torch.float64)
    lengths = [(0, 17, 24), (9, 20, 12)]  # padding, two documents
    documents = torch.tensor([[0] * (pad + a) + [1] * b for pad, a, b in lengths])
    padding = torch.tensor([[i < pad for i in range(LENGTH)] for pad, _, _ in lengths])
    marks = torch.rand(2, LENGTH) < 0.2
    outputs, state, cursor = [], None, None
    for cut in (slice(0, 14), slice(14, 15), slice(15, LENGTH)):
        part = {"documents": documents[:, cut], "padding": padding[:, cut], "kinds": torch.where(marks[:, cut], LANDMARK, TEXT)}
        ctx, cursor = advance(cursor, 2, documents[:, cut].shape[1], **part)
        y, state = block(x[:, cut], state, ctx)
        outputs.append(y)
    output = torch.cat(outputs, 1)
    for row, (pad, a, b) in enumerate(lengths):
        for start, stop in ((pad, pad + a), (pad + a, pad + a + b)):
            expected = oracle(block, x[row, start:stop], marks[row, start:stop], 2)
            assert error(output[row, start:stop], expected) < 1e-12


def test_the_oracle_is_a_distribution_and_ignores_landmarks() -> None:
    weights = dense(torch.randn(3, 20, 20, dtype=torch.float64), kinds(20)[0] == LANDMARK, None)
    assert torch.allclose(weights.sum(-1), torch.ones(3, 20, dtype=torch.float64))
    assert not weights[:, :, 5::6].any()


def test_retrieval_of_every_block_is_the_training_form_and_of_fewer_is_not() -> None:
    x = torch.randn(2, LENGTH, D, dtype=torch.float64)
    ctx, _ = advance(None, 2, LENGTH, kinds=kinds(LENGTH).expand(2, -1))
    outputs = []
    for top_k in (None, LENGTH // 6, 1):
        torch.manual_seed(3)
        outputs.append(build(top_k)(x, None, ctx)[0])
    assert torch.equal(outputs[0], outputs[1])
    assert error(outputs[2], outputs[0]) > 1e-3


def test_without_landmarks_it_is_causal_attention_and_landmarks_may_begin_later() -> None:
    block = build()
    x = torch.randn(1, 20, D, dtype=torch.float64)
    text, cursor = advance(None, 1, 12)
    later, _ = advance(cursor, 1, 8, kinds=kinds(8))
    first, state = block(x[:, :12], None, text)
    second, _ = block(x[:, 12:], state, later)
    marks = torch.cat([torch.zeros(12, dtype=torch.bool), kinds(8)[0] == LANDMARK])
    assert error(torch.cat([first, second], 1)[0], oracle(block, x[0], marks, None)) < 1e-12


@pytest.mark.parametrize("backend_name", ["reference", "chunked"])
def test_the_ledger_of_text_alone(backend_name: str) -> None:
    cost = CONFIG.cost(D, 30)
    ctx, _ = advance(None, 1, 30)
    with backend(backend_name), torch.no_grad(), FlopCounterMode(display=False, custom_mapping=SDPA_FLOPS) as counter:
        _, state = CONFIG.build(D)(torch.randn(1, 30, D), None, ctx)
    assert counter.get_total_flops() == (cost.flops if backend_name == "reference" else cost.executed_flops)
    assert state_bytes(state) == cost.state_bytes
    assert CONFIG.cost_of_kinds(D, [TEXT] * 30).flops == cost.flops


def test_the_contract_with_options() -> None:
    check_block(Config(n_kv_heads=2, top_k=2, conv=3, qk_norm="head", head_dim=6, rope=None), d_model=32)


@pytest.mark.parametrize(("sizes", "place"), [({"n_kv_heads": 3}, "n_kv_heads"), ({"n_heads": 5}, "n_heads"), ({"top_k": 0}, "top_k")])
def test_impossible_sizes_are_told(sizes: dict[str, int], place: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Config(**sizes).check(32)
    assert raised.value.place == place
