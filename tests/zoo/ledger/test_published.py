"""Models of published sizes: counted as the library that published them counts, and run in their tiny form."""

from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from blocks.errors import ConfigError
from tests.zoo.ledger.test_ledger import counted
from zoo.config.model import load_model
from zoo.config.schema import load_yaml
from zoo.convert import families
from zoo.convert.checkpoint import family_of
from zoo.ledger.ledger import ledger
from zoo.ledger.published import Published, read_published

FOLDER = Path(__file__).parents[3] / "configs" / "models" / "published"
PATHS = sorted(FOLDER.glob("*.yaml"))
FAMILIES = {path.stem: families.of_models()[path.stem] for path in PATHS if path.stem in families.of_models()}
WHOLE_HEADS = {"minimax_text_01": {"blocks": {"A": {"rope": {"partial": 1.0}}}}}  # its class turns no less, and has as many parameters


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_are_those_of_the_class_in_transformers(name: str) -> None:
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = load_model(FOLDER / f"{name}.yaml", overrides=WHOLE_HEADS.get(name))
    _, hf, family = family_of(config, FAMILIES[name])
    hf_config = CONFIG_MAPPING[family.MODEL_TYPES[0]](**{key: value for key, value in hf.items() if key != "model_type"})
    with torch.device("meta"):
        reference = AutoModelForCausalLM.from_config(hf_config)
    assert sum(p.numel() for p in reference.parameters()) == ledger(config, 1).params


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_parameters_are_the_published_ones_or_the_file_says_why_not(path: Path) -> None:
    published = read_published(path)
    assert published is not None
    parameters = ledger(load_model(path), 1).params
    assert published.agrees(parameters) is (published.differs is None)
    assert ("\n# unverified: " in path.read_text(encoding="utf-8")) or published.config is not None


@pytest.mark.parametrize(
    ("published", "least", "most"),
    [
        ({"parameters": 120}, 120, 120),
        ({"parameters": 120, "apart": {"mtp": 21, "padding": -1}}, 100, 100),
        ({"parameters": "2.7B"}, 2_650_000_000, 2_749_999_999),
        ({"parameters": "1.00K"}, 995, 1_004),
        ({"parameters": "350M", "apart": {"vision": 10**8}}, 249_500_000, 250_499_999),
    ],
)
def test_a_count_agrees_to_the_published_digits(published: dict[str, Any], least: int, most: int) -> None:
    count = Published(source="a paper", **published)
    assert [count.agrees(n) for n in (least - 1, least, most, most + 1)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ("{parameters: 1}", "published.source"),
        ("{parameters: 1, source: a, sauce: b}", "published.sauce"),
        ("{parameters: 0, source: a}", "published.parameters"),
        ("{parameters: 1.5, source: a}", "published.parameters"),
        ("{parameters: about 3B, source: a}", "published.parameters"),
        ("{parameters: 1, source: ' '}", "published.source"),
        ("{parameters: 1, source: a, apart: {mtp: 0}}", "published.apart.mtp"),
        ("{parameters: 1, source: a, apart: {mtp: 1.0}}", "published.apart.mtp"),
        ("8B", "published"),
    ],
)
def test_a_wrong_mapping_is_refused_by_its_place(tmp_path: Path, values: str, place: str) -> None:
    file = tmp_path / "model.yaml"
    file.write_text(f"published: {values}\n")
    with pytest.raises(ConfigError) as caught:
        read_published(file)
    assert caught.value.place == place


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
