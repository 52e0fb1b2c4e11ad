"""Watching and zeroing heads: which key is which token, whatever the pieces, windows, sinks and inserted tokens."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from zoo.measures.shared.attention_heads import Head, Seen, ablated, heads_of, watching
from zoo.measures.shared.streaming import evaluating, spans, stream
from zoo.model.model import Model

LENGTH = 23
ROPED: dict[str, Any] = {"n_heads": 4, "rope": {"base": 100}}
MODELS: dict[str, dict[str, Any]] = {
    "full": {"blocks": {"A": {"type": "gqa", **ROPED, "n_kv_heads": 2, "conv": 3}, "M": {"type": "mamba2", "d_state": 4, "head_dim": 4}}},
    "windows": {"blocks": {"A": {"type": "gqa", **ROPED, "window": 5}, "M": {"like": "A", "window": 4, "sink_tokens": 2}}},
    "sink_logit": {"blocks": {"A": {"type": "gqa", **ROPED, "sink_logit": True, "softcap": 3.0}, "M": {"like": "A", "share": True}}},
    "differential": {"blocks": {"A": {"type": "differential", "n_heads": 2}, "M": {"like": "A", "mix": "sigmoid", "window": 6}}},
    "core": {"blocks": {"A": {"type": "core_context", **ROPED, "group": 2, "local": 4}, "M": {"like": "A", "n_kv_heads": 2}}},
    "landmark": {
        "blocks": {"A": {"type": "landmark", **ROPED}, "M": {"type": "gqa", **ROPED, "window": 5}},
        "tokens": {"landmark": {"every": 5}},
    },
    "inserted": {
        "blocks": {"A": {"type": "gqa", **ROPED, "window": 7, "sink_tokens": 3}, "M": {"type": "meta_attention"}},
        "tokens": {"prefix": {"count": 3}, "meta": {"every": 4}},
    },
}


def model_of(name: str) -> Model:
    model = zoo.build({"d_model": 16, "vocab_size": 11, "pattern": "A M A", **MODELS[name]}, seed=1).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)  # sharper than at the start
    return model


def maps(model: Model, tokens: Tensor, piece: int, wanted: Tensor | None = None) -> dict[int, Tensor]:
    """slot -> weights (b, h, queries of the text, keys of the text), and what falls on other keys in a last column."""
    found: dict[int, Tensor] = {}

    def show(seen: Seen) -> None:
        b, h = seen.weights.shape[:2]
        whole = found.setdefault(seen.slot, torch.zeros(b, h, tokens.shape[1], tokens.shape[1] + 1, dtype=seen.weights.dtype))
        dense = torch.zeros(b, h, len(seen.queries), tokens.shape[1] + 1, dtype=seen.weights.dtype)
        column = seen.keys.where(seen.keys >= 0, tokens.shape[1]).expand_as(seen.weights)
        whole[:, :, seen.queries] = dense.scatter_add(3, column, seen.weights)

    with evaluating(model), watching(model, show, wanted):
        for _ in stream(model, tokens, None, spans(tokens.shape[1], piece)):
            pass
    return found


TOKENS = torch.randint(11, (2, LENGTH), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", MODELS)
def test_the_same_maps_whatever_the_pieces(name: str) -> None:
    model = model_of(name)
    whole = maps(model, TOKENS, LENGTH)
    assert sorted(whole) == sorted({head.slot for head in heads_of(model)})
    for weights in whole.values():
        assert torch.equal(weights[..., :-1].triu(1), torch.zeros_like(weights[..., :-1]))  # nothing after the query
    for piece in (1, 7):
        for slot, weights in maps(model, TOKENS, piece).items():
            torch.testing.assert_close(weights, whole[slot])


@pytest.mark.parametrize(("name", "slot", "window", "sinks"), [("windows", 0, 5, 0), ("windows", 1, 4, 2), ("differential", 1, 6, 0)])
def test_a_window_and_its_sinks(name: str, slot: int, window: int, sinks: int) -> None:
    weights = maps(model_of(name), TOKENS, 3)[slot]
    i, j = torch.arange(LENGTH)[:, None], torch.arange(LENGTH)
    visible = (j <= i) & ((i - j < window) | (j < sinks))
    assert torch.equal((weights != 0).all(1).all(0)[:, :-1], visible)
    assert bool((weights[..., -1] == 0).all())


def test_the_rest_falls_on_inserted_tokens_and_cores() -> None:
    for name in ("inserted", "core"):
        weights = maps(model_of(name), TOKENS, 4)[0]
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
        assert bool((weights[:, :, -1, -1] > 0).all())


def test_only_what_is_wanted_and_little_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("full")
    whole = maps(model, TOKENS, LENGTH)
    monkeypatch.setattr("zoo.measures.shared.attention_heads.ELEMENTS", 1)  # one query at once
    some = maps(model, TOKENS, 9, torch.tensor([3, 17]))
    for slot, weights in some.items():
        torch.testing.assert_close(weights[:, :, [3, 17]], whole[slot][:, :, [3, 17]])
        assert int(weights.sum((0, 1, 3)).count_nonzero()) == 2


def test_heads_are_named_by_their_place() -> None:
    assert [head.where for head in heads_of(model_of("full"))] == [{"layer": n, "block": "A", "head": h} for n in (0, 2) for h in range(4)]
    assert {head.slot for head in heads_of(model_of("inserted"))} == {0, 2}  # meta attention reads no text


def logits(model: Model, heads: Iterable[Head], piece: int = LENGTH) -> Tensor:
    with evaluating(model), ablated(model, heads):
        return torch.cat([r.nll for r in stream(model, TOKENS, TOKENS, spans(LENGTH, piece))], 1)


@pytest.mark.parametrize("name", ["full", "differential", "core", "landmark"])
def test_a_zeroed_head_is_a_head_without_output_weights(name: str) -> None:
    """Also in the second call of shared weights, and not in the first."""
    model = model_of(name)
    chosen = [head for head in heads_of(model) if head.slot == 2 and head.head in (0, 3)] + [heads_of(model)[1]]
    plain = logits(model, [])
    found = logits(model, chosen)
    torch.testing.assert_close(logits(model, chosen, 5), found)
    with torch.no_grad():
        for head in chosen:
            out: Any = model.stack.blocks[f"{head.layer:02d}_{head.block}"]
            heads = sum(h.slot == head.slot for h in heads_of(model))
            out.out.weight.unflatten(1, (heads, -1))[:, head.head] = 0
    torch.testing.assert_close(logits(model, []), found)
    assert not torch.allclose(plain, found)


def test_a_shared_block_is_zeroed_where_it_is_named() -> None:
    model = zoo.build({"d_model": 16, "vocab_size": 11, "pattern": "A A", "blocks": {"A": {"type": "gqa", "share": True}}}, seed=0).double()
    first, second = ([h for h in heads_of(model) if h.slot == slot and h.head == 0] for slot in (0, 1))
    assert not torch.allclose(logits(model, first), logits(model, second))
    assert torch.equal(logits(model, []), torch.cat([r.nll for r in stream(model, TOKENS, TOKENS, spans(LENGTH, LENGTH))], 1))


def test_no_head_is_followed_through_segments() -> None:
    config = {"d_model": 8, "vocab_size": 9, "blocks": {"A": {"type": "gqa"}}, "pattern": "A"}
    assert len(heads_of(zoo.build(config))) == 4
    assert heads_of(zoo.build(config | {"tokens": {"memory": {}}})) == []


def test_a_read_must_start_where_the_text_does() -> None:
    model = model_of("full")
    _, state = model(TOKENS)
    with watching(model, lambda seen: None), pytest.raises(ValueError, match="from the start"):
        model(TOKENS, state)
