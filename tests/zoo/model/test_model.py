"""A whole model: whole = pieces = steps, packed = alone, padding anywhere = alone, for every token plan; gradients reach everything."""

from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from zoo.model.model import next_tokens

VOCAB, LENGTH = 50, 33
PLANS: dict[str, dict[str, Any]] = {
    "none": {},
    "prefix": {"prefix": {"count": 3}},
    "meta": {"meta": {"every": 4}},
    "landmark": {"landmark": {"every": 6}},
    "all three": {"prefix": {"count": 2}, "meta": {"every": 5}, "landmark": {"every": 7}},
    "memory": {"memory": {"count": 3, "segment": 8}},
}


def make(tokens: dict[str, Any], **changes: Any) -> zoo.Model:
    blocks: dict[str, Any] = {
        "A": {"type": "gqa", "n_heads": 4, "n_kv_heads": 2, "rope": {}},
        "D": {"type": "gated_delta", "n_heads": 2, "head_dim": 8},
        "M": {"type": "mamba2", "d_state": 8, "head_dim": 8},
        "F": {"type": "swiglu"},
    }
    config = {"d_model": 32, "vocab_size": VOCAB, "blocks": blocks, "pattern": "M F A|D F", "tokens": tokens, **changes}
    return zoo.build(config, seed=1).double().eval()


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def text(batch: int = 2, length: int = LENGTH, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def read(model: zoo.Model, tokens: Tensor, sizes: list[int], **about: Tensor) -> Tensor:
    state, parts, start = None, [], 0
    for size in sizes:
        cut = slice(start, start + size)
        logits, state = model(tokens[:, cut], state, **{k: v[:, cut] for k, v in about.items()})
        parts.append(logits)
        start += size
    return torch.cat(parts, 1)


@pytest.mark.parametrize("plan", PLANS)
def test_whole_is_pieces_is_steps(plan: str) -> None:
    model, tokens = make(PLANS[plan]), text()
    whole = read(model, tokens, [LENGTH])
    for sizes in ([8, 8, 17], [1, 15, 3, 14], [1] * LENGTH):
        close(read(model, tokens, sizes), whole)


@pytest.mark.parametrize("plan", PLANS)
def test_packed_is_alone(plan: str) -> None:
    model, tokens = make(PLANS[plan]), text()
    lengths = [[9, 1, 14, 9], [20, 4, 9]]
    documents = torch.stack([torch.repeat_interleave(torch.arange(len(n)), torch.tensor(n)) for n in lengths])
    for sizes in ([LENGTH], [5, 16, 12]):
        packed = read(model, tokens, sizes, documents=documents)
        for row, ns in enumerate(lengths):
            start = 0
            for n in ns:
                close(packed[row, start : start + n], read(model, tokens[row : row + 1, start : start + n], [n])[0])
                start += n


@pytest.mark.parametrize("plan", PLANS)
def test_padding_anywhere_changes_nothing(plan: str) -> None:
    model, tokens = make(PLANS[plan]), text()
    padding = torch.zeros(2, LENGTH, dtype=torch.bool)
    padding[0, [0, 1, 9, 20, 32]] = True
    padding[1, 25:] = True
    for sizes in ([LENGTH], [10, 11, 12], [30, 3]):
        padded = read(model, tokens, sizes, padding=padding)
        for row in range(2):
            alone = tokens[row][~padding[row]][None]
            close(padded[row][~padding[row]], read(model, alone, [alone.shape[1]])[0])


@pytest.mark.parametrize("plan", PLANS)
def test_no_future_leak(plan: str) -> None:
    model, tokens = make(PLANS[plan]), text()
    changed = tokens.clone()
    changed[:, 20] = (changed[:, 20] + 1) % VOCAB
    a, b = read(model, tokens, [LENGTH]), read(model, changed, [LENGTH])
    close(a[:, :20], b[:, :20])
    assert (a[:, 20:] - b[:, 20:]).abs().max() > 1e-6


@pytest.mark.parametrize("plan", PLANS)
def test_every_parameter_gets_a_gradient(plan: str) -> None:
    model = make(PLANS[plan]).train()
    loss, _ = model.loss(text())
    loss.backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert missing == []


def test_loss_is_the_mean_cross_entropy_of_the_logits() -> None:
    model, tokens = make({}, logit_softcap=5.0), text()
    logits, _ = model(tokens)
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    loss, _ = model.loss(tokens)
    close(loss, expected)
    nll, _ = model.nll(tokens, next_tokens(tokens))
    torch.testing.assert_close(nll.double().sum() / (2 * (LENGTH - 1)), expected, rtol=1e-6, atol=0)  # nll is float32
    first, second = torch.autograd.grad(loss, model.embedding.weight)[0], torch.autograd.grad(expected, model.embedding.weight)[0]
    close(first, second)


def test_labels_stop_at_documents_and_padding() -> None:
    tokens = torch.tensor([[1, 2, 3, 4, 5]])
    assert next_tokens(tokens, documents=torch.tensor([[0, 0, 1, 1, 1]])).tolist() == [[2, -100, 4, 5, -100]]
    assert next_tokens(tokens, padding=torch.tensor([[True, False, False, False, True]])).tolist() == [[-100, 3, 4, -100, -100]]


def test_shared_blocks_are_one_set_of_weights() -> None:
    blocks = {"A": {"type": "gqa", "n_heads": 4, "share": True}, "F": {"type": "swiglu"}}
    shared = zoo.build({"d_model": 32, "vocab_size": VOCAB, "blocks": blocks, "pattern": "2*(A F)"})
    assert list(shared.stack.blocks) == ["A", "01_F", "03_F"]
    assert sum(p.numel() for p in shared.parameters()) == shared.ledger(8).params


def test_the_seed_decides_the_weights_and_nothing_else_moves() -> None:
    before = torch.random.get_rng_state()
    a, b, c = make({}), make({}), zoo.build(make({}).config, seed=2)
    assert torch.equal(before, torch.random.get_rng_state())
    same = [torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(a.embedding.weight, c.double().embedding.weight)


def test_logits_have_float32_and_the_head_may_be_its_own() -> None:
    model = make({}, tie_embeddings=False).float()
    logits, _ = model(text())
    assert logits.dtype == torch.float32
    assert model.head is not None
    assert logits.shape == (2, LENGTH, VOCAB)
