"""Zamba against ZambaForCausalLM."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from blocks.errors import ConfigError
from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import VOCAB
from zoo.config.model import load_model
from zoo.convert.checkpoint import family_of
from zoo.convert.families import zamba

CONFIGS = st.fixed_dictionaries(
    {
        "model_type": st.just("zamba"),
        "vocab_size": st.just(VOCAB),
        "hidden_size": st.sampled_from([12, 20]),
        "intermediate_size": st.sampled_from([7, 24]),
        "num_hidden_layers": st.just(5),
        "layers_block_type": st.sampled_from(
            [None, ["hybrid", *["linear_attention"] * 3, "hybrid"], ["mamba", "hybrid", "hybrid", "mamba", "mamba"]]
        ),
        "attn_layer_period": st.sampled_from([1, 2, 3]),
        "attn_layer_offset": st.just(0),  # the class takes no model with one hybrid layer
        "num_attention_heads": st.just(2),
        "num_key_value_heads": st.sampled_from([1, 2]),
        "attention_head_dim": st.sampled_from([None, 6]),
        "hidden_act": st.sampled_from(["gelu", "silu"]),
        "n_mamba_heads": st.sampled_from([1, 2, 4]),
        "mamba_d_state": st.sampled_from([4, 7]),
        "mamba_d_conv": st.sampled_from([2, 4]),
        "mamba_expand": st.sampled_from([1, 2]),
        "mamba_dt_rank": st.sampled_from(["auto", 3]),
        "mamba_conv_bias": st.booleans(),
        "mamba_proj_bias": st.booleans(),
        "rms_norm_eps": st.just(1e-3),
        "pad_token_id": st.none(),
    }
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("zamba", hf)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),  # the class then has other weights at every use
        ({"attention_hidden_size": 3712}, "attention_hidden_size"),
        ({"hidden_mamba_act": "gelu"}, "hidden_mamba_act"),
        ({"layers_block_type": ["hybrid", "full_attention"]}, "layers_block_type"),
    ],
)
def test_what_is_no_such_model_is_refused(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        zamba.to_zoo(changes)
    assert caught.value.place == place


def test_the_pattern_of_a_config_without_one() -> None:
    published = load_model(Path(__file__).parents[4] / "configs" / "models" / "published" / "zamba_7b.yaml")
    assert load_model(zamba.to_zoo({})).layers == published.layers


@pytest.mark.parametrize("pattern", ["2*M", "M S M S", "S T M", "M|S M", "S M T M", "M S M"])
def test_another_stack_is_no_zamba(pattern: str) -> None:
    into = {"into": "next"} if pattern.endswith(" M") and "|" not in pattern else {}
    block = {"type": "shared_transformer", "share": True, "norm_place": "none", **into}
    place = {"norm_place": "none"} if "|" in pattern else {}
    blocks = {"M": {"type": "mamba1", **place}, "S": block, "T": block}
    used = {name: spec for name, spec in blocks.items() if name in pattern}
    config = load_model({"d_model": 12, "vocab_size": 20, "blocks": used, "pattern": pattern})
    with pytest.raises(ConfigError):
        family_of(config, "zamba")
