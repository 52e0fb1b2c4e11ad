"""The text model of a checkpoint that also sees: read as the whole computes logits of text, its vision tower left out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from blocks.errors import ConfigError
from tests.oracle import error
from tests.zoo.convert.parity import FLOAT32, hf_config_class, scramble
from zoo.convert.checkpoint import import_folder, read
from zoo.convert.families import of_model_type
from zoo.weights.safetensors_io import WEIGHTS

TEXT = {"vocab_size": 31, "hidden_size": 12, "intermediate_size": 10, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
DELTA = {
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 5,
    "layer_types": ["linear_attention", "full_attention"],
}
EXPERTS = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 4, "shared_expert_intermediate_size": 6}
SIGHT = {"hidden_size": 8, "intermediate_size": 8, "depth": 1, "num_heads": 2, "out_hidden_size": 12, "num_position_embeddings": 4}
SIGHT4 = {"image_size": 28, "patch_size": 14, "vision_output_dim": 8, "projector_input_dim": 8, "projector_output_dim": 8}
WHOLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "qwen3_5": (TEXT | DELTA | {"num_hidden_layers": 2}, SIGHT),
    "qwen3_5_moe": (TEXT | DELTA | EXPERTS | {"num_hidden_layers": 2}, SIGHT),
    "llama4": (
        TEXT
        | {
            "num_hidden_layers": 4,
            "intermediate_size_mlp": 9,
            "num_local_experts": 3,
            "interleave_moe_layer_step": 2,
            "pad_token_id": None,
        },
        SIGHT4 | {"hidden_size": 8, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    ),
}


def whole(model_type: str) -> Any:
    from transformers import AutoModelForImageTextToText

    text, vision = WHOLES[model_type]
    torch.manual_seed(0)
    config = hf_config_class(model_type)(text_config=text, vision_config=vision)
    model = AutoModelForImageTextToText.from_config(config, attn_implementation="eager").eval()
    model.set_experts_implementation("eager")
    scramble(model)
    return model


@pytest.mark.parametrize("model_type", WHOLES)
def test_the_text_model_of_a_whole(model_type: str, tmp_path: Path) -> None:
    reference = whole(model_type)
    reference.save_pretrained(tmp_path, safe_serialization=True)
    tokens = torch.randint(31, (2, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert error(import_folder(tmp_path)(tokens)[0], reference(input_ids=tokens, use_cache=False).logits) < FLOAT32


def test_experts_in_one_tensor_are_read_as_experts_one_by_one(tmp_path: Path) -> None:
    whole("qwen3_5_moe").save_pretrained(tmp_path, safe_serialization=True)
    _, apart = read(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    for layer in range(2):
        inside = f"model.language_model.layers.{layer}.mlp.experts"
        one = {name: [tensors.pop(f"{inside}.{e}.{name}_proj.weight") for e in range(3)] for name in ("gate", "up", "down")}
        tensors[f"{inside}.gate_up_proj"] = torch.stack([torch.cat(pair) for pair in zip(one["gate"], one["up"], strict=True)])
        tensors[f"{inside}.down_proj"] = torch.stack(one["down"])
    save_file(tensors, tmp_path / WEIGHTS)
    _, together = read(tmp_path)
    assert apart.keys() == together.keys()
    assert all(torch.equal(apart[name], together[name]) for name in apart)


@pytest.mark.parametrize("model_type", WHOLES)
@pytest.mark.parametrize("wrong", [{"quantization_config": {"quant_method": "fp8"}, "text_config": {}}, {}])
def test_wholes_without_a_readable_text_model_are_refused(model_type: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"text_config|quantization_config"):
        of_model_type(model_type).to_zoo({"model_type": model_type, **wrong})
