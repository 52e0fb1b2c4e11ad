"""OLMo Hybrid against OlmoHybridForCausalLM: norms before some sub-layers and behind others."""

from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

from tests.oracle import error
from tests.zoo.convert.families.test_qwen3_next import LAYERS
from tests.zoo.convert.parity import check, examples, hf_logits, hf_model
from tests.zoo.convert.strategies import dense, ropes
from zoo.convert.checkpoint import export_folder, import_folder, read_shards

# key heads, value heads, their widths: all keys as wide as all values, for transformers writes three equal pieces of the convolution
WIDTHS = [(2, 2, 4, 4), (2, 4, 6, 3), (1, 3, 6, 2)]
NAMES = ("linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim")


CONFIGS = dense(
    "olmo_hybrid",
    layers=3,
    free_head_dim=False,
    layer_types=st.sampled_from(LAYERS),
    rope_parameters=st.one_of(ropes(), st.just({"rope_type": "default", "rope_theta": None})),
    attention_bias=st.booleans(),
    linear_allow_neg_eigval=st.booleans(),
    linear_conv_kernel_dim=st.sampled_from([2, 4]),
    widths=st.sampled_from(WIDTHS),
).map(lambda hf: {key: value for key, value in hf.items() if key != "widths"} | dict(zip(NAMES, hf["widths"], strict=True)))


@examples(CONFIGS, count=6)
def test_parity(hf: dict[str, Any]) -> None:
    check("olmo_hybrid", hf)


def test_wider_values(tmp_path: Path) -> None:
    """What the zoo writes has the convolution's true pieces, and what transformers writes is read all the same."""
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "layer_types": ["linear_attention", "full_attention"]}
    sizes = {"hidden_size": 12, "intermediate_size": 7, "vocab_size": 61, **dict(zip(NAMES, (2, 2, 3, 5), strict=True))}
    reference = hf_model({"model_type": "olmo_hybrid", "pad_token_id": None, "eos_token_id": None, **heads, **sizes})
    reference.save_pretrained(tmp_path / "hf")
    model = import_folder(tmp_path / "hf")
    tokens = torch.randint(61, (2, 9))
    with torch.no_grad():
        assert error(model(tokens)[0], hf_logits(reference, tokens)) < 1e-5
    export_folder(model, tmp_path / "zoo", "olmo_hybrid")
    written = read_shards(tmp_path / "zoo")
    assert [written[f"model.layers.0.linear_attn.{name}_conv1d.weight"].shape[0] for name in "qkv"] == [6, 6, 10]
