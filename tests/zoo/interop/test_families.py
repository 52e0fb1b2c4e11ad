"""What holds for every family: its defaults are those of the class that it reads, and no key of the class is overlooked."""

import importlib
from typing import Any

import pytest

from zoo.interop import families
from zoo.interop.layers import assemble, fold
from zoo.pattern import expand

# keys that change nothing of what is computed in eval mode with explicit positions
HARMLESS = {
    *("initializer_range", "use_cache", "pad_token_id", "bos_token_id", "eos_token_id", "attention_dropout", "max_position_embeddings"),
    *("rope_parameters", "pretraining_tp", "default_theta"),
    *("resid_pdrop", "embd_pdrop", "attn_pdrop", "reorder_and_upcast_attn"),
    *("mamba_chunk_size", "num_logits_to_keep", "z_loss_coefficient", "output_router_logits", "router_aux_loss_coef"),
    *("use_associative_scan", "use_mamba_kernels", "use_mambapy"),
    *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout"),
}
# families whose every key is accounted for here
COMPLETE = ("llama", "mistral", "qwen3", "smollm3", "gemma2", "gemma3", "olmo3", "cohere2", "gpt2", "nanochat", "granite")
COMPLETE += ("bamba", "falcon_h1", "granitemoehybrid", "jamba")
WITH_DEFAULTS = [name for name in families.names() if "DEFAULTS" in vars(families.family(name))]


def their_config(name: str) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[families.family(name).MODEL_TYPES[0]]


@pytest.mark.parametrize("name", WITH_DEFAULTS)
def test_defaults_are_the_class_s(name: str) -> None:
    cls, defaults = their_config(name), importlib.import_module(f"zoo.interop.families.{name}").DEFAULTS
    fields = {key: value.default for key, value in cls.__dataclass_fields__.items()}
    wrong = {key: value for key, value in defaults.items() if key in fields and fields[key] != value}
    assert wrong == {}


@pytest.mark.parametrize("name", COMPLETE)
def test_no_key_of_the_class_is_overlooked(name: str) -> None:
    from transformers import PreTrainedConfig

    defaults = importlib.import_module(f"zoo.interop.families.{name}").DEFAULTS
    keys = set(their_config(name).__dataclass_fields__) - set(PreTrainedConfig.__dataclass_fields__)
    assert keys - set(defaults) - HARMLESS == set()


def test_every_model_type_is_read_by_one_family() -> None:
    types = [kind for name in families.names() for kind in families.family(name).MODEL_TYPES]
    assert sorted(types) == sorted(set(types))


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
