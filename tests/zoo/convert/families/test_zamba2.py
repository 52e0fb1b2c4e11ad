"""Zamba2 against Zamba2ForCausalLM."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

import zoo
from blocks.errors import ConfigError
from tests.oracle import error
from tests.zoo.convert.parity import check, examples, hf_model
from tests.zoo.convert.strategies import DEFAULT, LINEAR, VOCAB, ropes
from zoo.config.model import load_model
from zoo.convert import weight_map
from zoo.convert.checkpoint import family_of, import_folder
from zoo.convert.families import zamba2
from zoo.weights.safetensors_io import weights_of

CONFIGS = st.fixed_dictionaries(
    {
        "model_type": st.just("zamba2"),
        "vocab_size": st.just(VOCAB),
        "hidden_size": st.sampled_from([12, 20]),
        "intermediate_size": st.sampled_from([None, 7]),
        "num_hidden_layers": st.just(4),
        "layers_block_type": st.sampled_from(
            [
                ["linear_attention", "hybrid", "hybrid", "hybrid"],
                ["hybrid", "hybrid", "mamba", "hybrid"],
                ["mamba", "mamba", "hybrid", "mamba"],
            ]
        ),
        "num_attention_heads": st.just(2),
        "num_key_value_heads": st.sampled_from([None, 1]),
        "hidden_act": st.sampled_from(["gelu", "silu"]),
        "num_mem_blocks": st.sampled_from([1, 2, 3]),
        "use_shared_attention_adapter": st.booleans(),
        "adapter_rank": st.sampled_from([3, 5]),
        "use_mem_rope": st.booleans(),
        "rope_parameters": ropes(DEFAULT, LINEAR),
        "n_mamba_heads": st.sampled_from([2, 4]),
        "mamba_ngroups": st.sampled_from([1, 2]),
        "mamba_d_state": st.sampled_from([4, 7]),
        "mamba_d_conv": st.sampled_from([2, 4]),
        "time_step_min": st.sampled_from([0.001, 0.3]),
        "chunk_size": st.just(8),
        "add_bias_linear": st.booleans(),
        "rms_norm_eps": st.just(1e-3),
        "pad_token_id": st.none(),
    }
).map(lambda hf: hf | {"num_key_value_heads": None} if hf["use_shared_attention_adapter"] else hf)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("zamba2", hf)


SMALL: dict[str, Any] = {
    "model_type": "zamba2",
    "vocab_size": VOCAB,
    "hidden_size": 12,
    "num_hidden_layers": 4,
    "layers_block_type": ["hybrid", "hybrid", "linear_attention", "hybrid"],
    "num_attention_heads": 2,
    "num_mem_blocks": 2,
    "use_shared_attention_adapter": True,
    "adapter_rank": 3,
    "n_mamba_heads": 4,
    "mamba_d_state": 4,
    "chunk_size": 8,
    "pad_token_id": None,
}


def test_every_use_may_hold_a_copy() -> None:
    """As a checkpoint whose transformers were saved wherever they stand: exact copies are read, others refused."""
    model = zoo.build(zamba2.to_zoo(SMALL))
    entries, own = zamba2.rules(model.config), weights_of(model)
    written = weight_map.to_hf(entries, own, "zamba2")
    copied = {
        name.replace("layers.0.", "layers.3."): t for name, t in written.items() if name.startswith("model.layers.0.shared_transformer.")
    }
    assert len(copied) == 8 + 2 * 4 * 2  # the shared tensors, and two matrices of four adapters of two uses
    assert copied.keys().isdisjoint(written)
    tensors = weight_map.to_zoo(entries, written | copied, own, "here")
    assert all(torch.equal(tensors[name], tensor) for name, tensor in own.items())
    name, tensor = next(iter(copied.items()))
    with pytest.raises(ConfigError, match=name):
        weight_map.to_zoo(entries, written | copied | {name: tensor + 1}, own, "here")


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"use_conv_bias": False}, "use_conv_bias"),
        ({"use_long_context": True}, "use_long_context"),
        ({"num_key_value_heads": 1}, "num_key_value_heads"),
        ({"attention_head_dim": 4}, "num_attention_heads"),
        ({"attention_hidden_size": 20}, "attention_hidden_size"),
        ({"mamba_headdim": 3}, "mamba_headdim"),
        ({"n_mamba_heads": 5}, "n_mamba_heads"),
        ({"hybrid_layer_ids": [0]}, "hybrid_layer_ids"),
        ({"layers_block_type": ["full_attention", "hybrid"]}, "layers_block_type"),
    ],
)
def test_what_is_no_such_model_is_refused(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        zamba2.to_zoo(SMALL | changes)
    assert caught.value.place == place


def test_an_untied_head_unties_the_transformers_of_the_class() -> None:
    """Why it is refused: the class then computes with other weights at every use."""

    def transformers(tied: bool) -> int:
        model = hf_model(SMALL | {"tie_word_embeddings": tied})
        return len(
            {id(layer.shared_transformer.self_attn.o_proj.weight) for layer in model.model.layers if hasattr(layer, "shared_transformer")}
        )

    assert (transformers(True), transformers(False)) == (2, 3)


def test_transformers_in_another_order_are_no_zamba2() -> None:
    """With the same blocks in the same places: it is the sharing that differs."""
    values = zamba2.to_zoo(SMALL | {"layers_block_type": ["hybrid"] * 4})
    assert values["pattern"] == "2*(S M S2 M)"
    assert family_of(load_model(values), "zamba2")[0] == "zamba2"
    with pytest.raises(ConfigError, match="share"):
        family_of(load_model(values | {"pattern": "2*(S M) 2*(S2 M)"}), "zamba2")


def test_the_pattern_of_a_config_without_one() -> None:
    letters = {"M": "M", "S": "S", "S2": "T"}
    config = load_model(zamba2.to_zoo({"n_mamba_heads": 80, "num_mem_blocks": 2}))
    published = load_model(Path(__file__).parents[4] / "configs" / "models" / "published" / "zamba2_2b7.yaml")
    assert [letters[name] for (name,) in config.layers] == [name for (name,) in published.layers]


def test_single_steps_of_the_class_lose_the_bound_of_dt(tmp_path: Path) -> None:
    """The class's decoding leaves its own full pass where dt is below time_step_min; the zoo's doesn't."""
    reference = hf_model(SMALL | {"time_step_min": 0.5})
    reference.save_pretrained(tmp_path)
    model = import_folder(tmp_path)
    tokens = torch.randint(VOCAB, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = reference(tokens, use_cache=False).logits
        cache = reference(tokens[:, :11]).past_key_values
        step = reference(tokens[:, 11:], past_key_values=cache).logits
        _, state = model(tokens[:, :11])
        own, _ = model(tokens[:, 11:], state)
    assert error(own, whole[:, 11:]) < 1e-5
    assert error(step, whole[:, 11:]) > 1e-3
