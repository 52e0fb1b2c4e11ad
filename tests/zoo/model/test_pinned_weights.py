"""Names, shapes and values of the weights of a few models under seed 0, and their logits, are those of zoo 2026.11."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from zoo.config.model import load_model

HERE = Path(__file__).parent
MODELS = HERE.parents[2] / "configs/models"
PINNED: dict[str, Any] = json.loads((HERE / "pinned_weights.json").read_text())  # recorded with zoo 2026.11


def described(path: Path) -> dict[str, Any]:
    """Each tensor's shape, mean and root mean square, in the order of the state_dict; ten logits of the last of 12 tokens."""
    config = load_model(path, tiny=True)
    model = zoo.build(config, seed=0).eval()
    tokens = torch.arange(12)[None] * 5 % config.vocab_size
    with torch.no_grad():
        logits = model(tokens)[0][0, -1, :10].double().tolist()
    tensors = {name: tensor.double() for name, tensor in model.state_dict().items()}
    weights = [[name, list(t.shape), t.mean().item(), t.square().mean().sqrt().item()] for name, t in tensors.items()]
    return {"weights": weights, "logits": logits}


@pytest.mark.parametrize("name", PINNED)
def test_a_model_is_built_as_before(name: str) -> None:
    now, before = described(MODELS / name), PINNED[name]
    assert [weight[:2] for weight in now["weights"]] == [weight[:2] for weight in before["weights"]]
    for (key, _, *values), (_, _, *expected) in zip(now["weights"], before["weights"], strict=True):
        assert values == pytest.approx(expected, rel=1e-6, abs=1e-6), key
    assert now["logits"] == pytest.approx(before["logits"], rel=1e-6, abs=1e-6)
