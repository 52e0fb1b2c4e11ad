"""Models of published sizes: counted as the library that published them counts, and run in their tiny form."""

from pathlib import Path

import pytest
import torch

import zoo
from tests.zoo.test_ledger import counted
from zoo.config import load_model
from zoo.interop import families
from zoo.interop.checkpoint import family_of
from zoo.interop.published import FAMILIES
from zoo.ledger import ledger
from zoo.schema import load_yaml

FOLDER = Path(__file__).parents[2] / "configs" / "models" / "published"
NAMED = {  # published by name alone: the leading digits of the size that the name gives, and their unit
    "gated_deltanet_1_3b": (13, 10**8),  # NVlabs/GatedDeltaNet: GatedDeltaNet_1.3B
    "gated_deltanet_h1_1_3b": (13, 10**8),  # NVlabs/GatedDeltaNet: GatedDeltaNet_H1_1.3B
    "mamba2_hybrid_8b": (8, 10**9),  # arXiv:2406.07887
    "samba_421m": (421, 10**6),  # microsoft/Samba: Samba_421M
    "transnormer_1b": (1, 10**9),  # OpenNLPLab/TransNormerLLM-1B
}
PATHS = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_are_those_of_the_class_in_transformers(name: str) -> None:
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = load_model(FOLDER / f"{name}.yaml")
    _, hf, family = family_of(config, FAMILIES[name])
    their_config = CONFIG_MAPPING[family.MODEL_TYPES[0]](**{key: value for key, value in hf.items() if key != "model_type"})
    with torch.device("meta"):
        theirs = AutoModelForCausalLM.from_config(their_config)
    assert sum(p.numel() for p in theirs.parameters()) == ledger(config, 1).params


@pytest.mark.parametrize("name", NAMED)
def test_parameters_have_the_digits_of_the_published_name(name: str) -> None:
    digits, unit = NAMED[name]
    assert ledger(load_model(FOLDER / f"{name}.yaml"), 1).params // unit == digits


def test_rwkv7_has_the_parameters_of_its_checkpoint() -> None:
    d, layers, ranks = 1024, 24, (64, 64, 32, 128)  # decay, rate, value mix (none in the first layer), gate
    matrices = 2 * 65536 * d + layers * (12 * d * d + 2 * d * sum(ranks)) - 2 * d * ranks[2]
    vectors = 4 * d + layers * 19 * d - d
    assert ledger(load_model(FOLDER / "rwkv7_400m.yaml"), 1).params == matrices + vectors == 450_767_872


def test_the_mamba2_hybrid_has_the_published_pattern() -> None:
    letters = {"M": "M", "A": "*", "F": "-"}
    pattern = "".join(letters[name] for (name,) in load_model(FOLDER / "mamba2_hybrid_8b.yaml").layers)
    assert pattern == "M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-"


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_tiny_forms_run_in_pieces_and_their_ledger_is_true(path: Path) -> None:
    config = load_model(path, tiny=True)
    full = load_model(path)
    assert {b.type for b in config.named.values()} == {b.type for b in full.named.values()}
    model = zoo.build(config, seed=0)
    assert sum(p.numel() for p in model.parameters()) == model.ledger(1).params < 200_000
    flops, state = counted(model, 17, "reference")
    assert (model.ledger(17).flops, model.ledger(17).state_bytes) == (flops, zoo.state_bytes(state))
    model = model.double().eval()
    tokens = torch.randint(config.vocab_size, (2, 17))
    whole, _ = model(tokens)
    first, state = model(tokens[:, :9])
    second, _ = model(tokens[:, 9:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-9, atol=1e-9)


def test_every_published_model_has_a_tiny_form() -> None:
    assert [path.name for path in PATHS if "tiny" not in load_yaml(path)] == []
    assert set(FAMILIES.values()) <= set(families.names())
