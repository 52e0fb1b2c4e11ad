"""The small models of configs/models: which of them a class of transformers computes, and that it computes the same."""

from pathlib import Path

import pytest
import torch

import zoo
from tests.oracle import error
from zoo.convert.checkpoint import OWN, export_folder, family_of
from zoo.convert.families import of_models

MODELS = Path(__file__).parents[3] / "configs" / "models"
NAMES = sorted(path.stem for path in MODELS.glob("*.yaml"))
COMPUTED = [name for name in NAMES if name in of_models()]


@pytest.mark.parametrize("name", NAMES)
def test_a_family_names_the_models_that_are_written_as_its_own(name: str) -> None:
    assert family_of(zoo.load_model(MODELS / f"{name}.yaml"))[0] == of_models().get(name, OWN)


@pytest.mark.parametrize("name", COMPUTED)
def test_transformers_computes_the_same(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = zoo.build(MODELS / f"{name}.yaml").double().eval()
    tokens = torch.randint(model.config.vocab_size, (2, 12))
    export_folder(model, tmp_path)
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    with torch.no_grad():
        assert error(model(tokens)[0], reference(tokens).logits) < 1e-6
