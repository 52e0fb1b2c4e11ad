"""The parity check can fail: what both directions of a round trip share, only the numbers can tell."""

from typing import Any

import pytest

from blocks import gqa
from tests.zoo.convert import parity
from zoo.convert.shared import dense
from zoo.convert.shared.layers import Place
from zoo.convert.weight_map import Rule, linear

HF = {
    "model_type": "llama",
    "vocab_size": 20,
    "hidden_size": 12,
    "intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pad_token_id": None,
}


def test_positions_that_are_a_little_off(monkeypatch: pytest.MonkeyPatch) -> None:
    rotate = gqa.rotate
    monkeypatch.setattr(gqa, "rotate", lambda x, positions, rope: rotate(x, positions * 1.00001, rope))
    with pytest.raises(AssertionError, match="logits64"):
        parity.check("llama", HF)


def test_names_exchanged_in_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    def exchanged(place: Place, hf: str) -> list[Rule]:
        names = {"gate": "up", "up": "gate", "down": "down"}
        return [rule for zoo, name in names.items() for rule in linear(f"{place.weights}.{zoo}", f"{hf}.{name}_proj")]

    monkeypatch.setattr(dense, "gated_rules", exchanged)
    with pytest.raises(AssertionError, match="logits64"):
        parity.check("llama", HF)


def test_a_gradient_that_is_not_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = gqa.Block.forward

    def detached(self: gqa.Block, *arguments: Any) -> Any:
        y, state = forward(self, *arguments)
        return y.detach(), state

    monkeypatch.setattr(gqa.Block, "forward", detached)
    with pytest.raises(AssertionError) as caught:
        parity.check("llama", HF)
    assert "gradients64" in str(caught.value)
