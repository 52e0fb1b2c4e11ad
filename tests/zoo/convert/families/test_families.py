"""What holds for every family: its defaults are those of the class, and any model is written as one of its own or refused."""

import importlib
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

from blocks.errors import ConfigError
from tests.zoo.convert.parity import hf_config_class
from zoo.config.model import ModelConfig, load_model
from zoo.config.pattern import expand
from zoo.convert import families
from zoo.convert.checkpoint import family_of
from zoo.convert.shared.layers import assemble, fold

MODELS = Path(__file__).parents[4] / "configs" / "models"

WITH_DEFAULTS = [name for name in families.names() if "DEFAULTS" in vars(families.family(name))]


@pytest.mark.parametrize("name", WITH_DEFAULTS)
def test_defaults_are_the_class_s(name: str) -> None:
    cls, defaults = hf_config_class(families.family(name).MODEL_TYPES[0]), importlib.import_module(f"zoo.convert.families.{name}").DEFAULTS
    fields = {key: value.default for key, value in cls.__dataclass_fields__.items()}
    wrong = {key: value for key, value in defaults.items() if key in fields and fields[key] != value}
    assert wrong == {}


@cache
def tiny_models() -> list[ModelConfig]:
    """All models of configs/models, in small."""
    return [load_model(path, tiny=True) for path in sorted(MODELS.rglob("*.yaml"))]


def test_every_model_type_is_read_by_one_family() -> None:
    types = [kind for name in families.names() for kind in families.family(name).MODEL_TYPES]
    assert sorted(types) == sorted(set(types))


def test_a_model_is_named_by_one_family() -> None:
    """...and is there: MODELS of all families together."""
    models = [model for name in families.names() for model in families.declared(name, "MODELS")]
    assert sorted(models) == sorted(set(models))
    assert set(models) <= {path.stem for path in MODELS.rglob("*.yaml")}


@pytest.mark.parametrize(
    ("texts", "pattern"),
    [
        (["A"], "A"),
        (["A", "F"] * 3, "3*(A F)"),
        (["A|F"] * 3, "3*(A|F)"),
        (["A", "A", "F"], "2*A F"),
        ((["W", "F"] * 2 + ["A", "F"]) * 2 + ["W", "F"], "2*(2*(W F) A F) W F"),
    ],
)
def test_patterns_are_folded(texts: list[str], pattern: str) -> None:
    assert fold(texts) == pattern
    assert ["|".join(names) for names in expand(pattern)] == texts


def test_equal_blocks_share_a_name() -> None:
    a, w, f = {"type": "gqa"}, {"type": "gqa", "window": 4}, {"type": "swiglu"}
    made = assemble([[a], [f], [w], [f], [{"type": "gqa", "bias": True}, f]])
    assert made == {"blocks": {"A": a, "F": f, "W": w, "A2": {"type": "gqa", "bias": True}}, "pattern": "A F W F A2|F"}


@pytest.mark.parametrize("name", families.names())
def test_any_model_is_written_or_refused(name: str) -> None:
    """By ConfigError, not by what breaks on a block that the family has never seen."""
    for config in tiny_models():
        with suppress(ConfigError):
            assert family_of(config, name)[0] == name
