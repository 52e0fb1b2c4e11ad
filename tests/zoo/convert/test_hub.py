"""The published YAMLs are the published models: what a checkpoint's config.json says is read as its YAML says it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from blocks.errors import ConfigError
from zoo.config.model import load_model
from zoo.convert import families
from zoo.convert.families import of_model_type, of_models
from zoo.convert.shared.layers import require_same

FOLDER = Path(__file__).parents[3] / "configs" / "models" / "published"
CONFIGS: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("hub.yaml").read_text(encoding="utf-8"))
BARE = {"num_attention_heads": 4, "num_key_value_heads": 4}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_json_is_read_as_the_yaml_says(name: str) -> None:
    hf = CONFIGS[name]
    family = of_model_type(hf["model_type"])
    assert family is families.family(of_models()[name])
    require_same(of_models()[name], load_model(FOLDER / f"{name}.yaml"), load_model(family.to_zoo(hf)))


@pytest.mark.parametrize("name", CONFIGS)
def test_quantized_weights_are_refused(name: str) -> None:
    hf: dict[str, Any] = CONFIGS[name] | {"quantization_config": {"quant_method": "fp8"}}
    with pytest.raises(ConfigError, match="quantization_config"):
        of_model_type(hf["model_type"]).to_zoo(hf)


@pytest.mark.parametrize(("kind", "more"), [("linear", {"factor": 2.0}), ("yarn", {"factor": 4.0}), ("llama3", {})])
def test_both_spellings_of_rotary_positions(kind: str, more: dict[str, float]) -> None:
    llama = of_model_type("llama")
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0} | more
    old: dict[str, Any] = {"rope_theta": 100.0, "rope_scaling": {"type": kind} | scaling}
    new: dict[str, Any] = {"rope_parameters": {"rope_type": kind, "rope_theta": 100.0} | scaling}
    assert llama.to_zoo(BARE | old) == llama.to_zoo(BARE | new)
    assert llama.to_zoo(BARE | old | {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}) == llama.to_zoo(BARE | old)
    with pytest.raises(ConfigError, match="rope_type"):
        llama.to_zoo(BARE | {"rope_scaling": {"type": "dynamic", "factor": 2.0}})
