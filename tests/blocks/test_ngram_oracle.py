"""The n-gram head against its definition: a float64 matrix over all pairs, written here from the equations."""

import pytest
import torch
from torch import Tensor

import zoo
from blocks.context import Context, advance
from blocks.errors import ConfigError
from blocks.ngram import Block, Config
from blocks.state import detach, state_bytes
from tests.oracle import error, moved
from zoo.config.inserted_tokens import Landmark, TokensConfig, insert

D, LENGTH = 12, 43


def attention(tokens: list[int], n: int) -> Tensor:
    """A (t, t) of one document: uniform over the earlier positions that the last n tokens read stand before; negative ids match nothing."""
    t = len(tokens)
    A = torch.zeros(t, t, dtype=torch.float64)
    for i in range(n - 1, t):
        last = tokens[i - n + 1 : i + 1]
        matches = [j for j in range(n, i) if tokens[j - n : j] == last and min(last) >= 0]
        for j in matches:
            A[i, j] = 1 / len(matches)
    return A


def oracle(block: Block, x: Tensor, tokens: list[int]) -> Tensor:
    """One document x (t, d)."""
    output = attention(tokens, block.n) @ x
    return output @ block.matched.weight.T + block.matched.bias + x @ block.own.weight.T + block.own.bias


def build(n: int) -> Block:
    return moved(Config(n=n).build(D, 1, 3).double())  # type: ignore[return-value]


def text(batch: int = 1, letters: int = 3) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, LENGTH, D, dtype=torch.float64), torch.randint(letters, (batch, LENGTH))


def test_the_definition_on_a_text_made_by_hand() -> None:
    a, b, c = range(3)
    weights = attention([a, b, a, c, a, a, a], 1)
    assert weights[2].tolist() == [0, 1, 0, 0, 0, 0, 0]  # after the first a came b
    assert weights[4].tolist() == [0, 0.5, 0, 0.5, 0, 0, 0]  # b and c
    third = 1 / 3
    assert weights[6].tolist() == pytest.approx([0, third, 0, third, 0, third, 0])  # the token itself follows an a too, but is not earlier
    assert not weights[0].any()
    assert not weights[3].any()
    assert attention([a, b, c, a, b, a, b], 2)[6].tolist() == [0, 0, 0.5, 0, 0, 0.5, 0]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_values_and_gradients_equal_the_definition(n: int) -> None:
    block, (x, tokens) = build(n), text()
    x.requires_grad_()
    ctx, _ = advance(None, 1, LENGTH, tokens=tokens)
    assert attention(tokens[0].tolist(), n).any(1).sum() > 10
    leaves, weight = [x, *block.parameters()], torch.randn(LENGTH, D, dtype=torch.float64)
    output, expected = block(x, None, ctx)[0][0], oracle(block, x[0], tokens[0].tolist())
    assert error(output, expected) < 1e-13
    gradients = zip(*(torch.autograd.grad((y * weight).sum(), leaves) for y in (output, expected)), strict=True)
    assert max(error(a, b) for a, b in gradients) < 1e-12


@pytest.mark.parametrize("n", [1, 3])
def test_packed_documents_behind_padding_in_pieces_equal_the_definition(n: int) -> None:
    block, (x, tokens) = build(n), text(2, letters=2)
    lengths = [(0, 19, 24), (9, 20, 14)]  # padding, two documents
    documents = torch.tensor([[0] * (pad + a) + [1] * b for pad, a, b in lengths])
    padding = torch.tensor([[i < pad for i in range(LENGTH)] for pad, _, _ in lengths])
    outputs, state, cursor = [], None, None
    for cut in (slice(0, 14), slice(14, 15), slice(15, LENGTH)):
        part = {"documents": documents[:, cut], "padding": padding[:, cut], "tokens": tokens[:, cut]}
        ctx, cursor = advance(cursor, 2, documents[:, cut].shape[1], **part)
        y, state = block(x[:, cut], state, ctx)
        outputs.append(y)
    output = torch.cat(outputs, 1)
    for row, (pad, a, b) in enumerate(lengths):
        for start, stop in ((pad, pad + a), (pad + a, pad + a + b)):
            expected = oracle(block, x[row, start:stop], tokens[row, start:stop].tolist())
            assert error(output[row, start:stop], expected) < 1e-13


def test_large_ids_and_long_grams_are_told_apart() -> None:
    block, (x, tokens) = build(6), text(letters=2)
    tokens = tokens * (2**40) + 2**20  # as base-V digits, six of them would not fit into 64 bits
    ctx, _ = advance(None, 1, LENGTH, tokens=tokens)
    assert attention(tokens[0].tolist(), 6).any()
    assert error(block(x, None, ctx)[0][0], oracle(block, x[0], tokens[0].tolist())) < 1e-13


def test_an_inserted_token_matches_nothing() -> None:
    block, tokens = build(2), torch.randint(2, (1, 30))
    layout = insert(TokensConfig(landmark=Landmark(every=7)), Context(torch.arange(30)[None], tokens=tokens))
    ids = layout.ctx.tokens
    assert ids is not None
    assert ids[0].tolist() == [t for i, t in enumerate(tokens[0].tolist()) for t in ([t, -1] if i % 7 == 6 else [t])]
    x = torch.randn(1, ids.shape[1], D, dtype=torch.float64)
    assert error(block(x, None, layout.ctx)[0][0], oracle(block, x[0], ids[0].tolist())) < 1e-13


def test_the_model_gives_the_ids() -> None:
    values = {"d_model": D, "vocab_size": 4, "blocks": {"N": {"type": "ngram", "n": 2}}, "pattern": "N"}
    model = zoo.build(values).double()
    block, tokens = model.stack.blocks["00_N"], torch.randint(4, (1, LENGTH))
    x = model.embedding(tokens)
    expected = model.norm(x + oracle(block, model.stack.norms["0"](x)[0], tokens[0].tolist())) @ model.embedding.weight.T
    first, state = model(tokens[:, :20])
    second, _ = model(tokens[:, 20:], state)
    assert error(torch.cat([first, second], 1), expected.float()) < 1e-6


@pytest.mark.parametrize("length", [1, 30])
def test_the_state_is_ids_and_inputs(length: int) -> None:
    ctx, _ = advance(None, 1, length, tokens=torch.zeros(1, length, dtype=torch.int64))
    _, state = Config(n=3).build(D)(torch.randn(1, length, D), None, ctx)
    assert state_bytes(detach(state)) == Config(n=3).cost(D, length).state_bytes == length * (4 * D + 8)


def test_without_ids_it_says_so() -> None:
    with pytest.raises(ValueError, match="token ids"):
        Config().build(D)(torch.randn(1, 3, D), None, advance(None, 1, 3)[0])
    values = {"d_model": 8, "vocab_size": 4, "blocks": {"N": {"type": "ngram"}}, "pattern": "N", "tokens": {"memory": {"count": 2}}}
    with pytest.raises(ConfigError) as raised:
        zoo.load_model(values)
    assert raised.value.place == "blocks.N.type"
    with pytest.raises(ConfigError):
        Config(n=0).check(8)
