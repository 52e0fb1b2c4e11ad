"""The small models of configs/models: which of them are a class of transformers', and that this class computes them."""

from pathlib import Path

import pytest
import torch

import zoo
from tests.oracle import error
from zoo.convert.checkpoint import OWN, export_folder, family_of
from zoo.ledger.published import SMALL

MODELS = Path(__file__).parents[3] / "configs" / "models"
NAMES = sorted(path.stem for path in MODELS.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_the_table_is_what_is_found(name: str) -> None:
    assert family_of(zoo.load_model(MODELS / f"{name}.yaml"))[0] == SMALL.get(name, OWN)


@pytest.mark.parametrize("name", SMALL)
def test_transformers_computes_the_same(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = zoo.build(MODELS / f"{name}.yaml").double().eval()
    tokens = torch.randint(model.config.vocab_size, (2, 12))
    export_folder(model, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    with torch.no_grad():
        assert error(model(tokens)[0], theirs(tokens).logits) < 1e-6
