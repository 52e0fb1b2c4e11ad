"""Kimi Linear against KimiLinearForCausalLM."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.families.test_qwen3_next import LAYERS
from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import latent
from zoo.convert.families import kimi_linear

SIZES: dict[str, Any] = {
    "layers": 3,
    "layer_types": st.sampled_from(LAYERS),
    "mlp_layer_types": st.sampled_from([["dense", "sparse", "sparse"], ["sparse", "dense", "sparse"]]),
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "n_group": st.sampled_from([1, 3]),
    "norm_topk_prob": st.booleans(),
    "attention_bias": st.booleans(),
    "tie_word_embeddings": False,
}


def plain(hf: dict[str, Any]) -> dict[str, Any]:
    """Without keys that only other families have."""
    return {key: value for key, value in hf.items() if key not in ("n_routed_experts", "first_k_dense_replace", "rope_parameters")}


CONFIGS = latent(
    "kimi_linear",
    q_lora_rank=st.sampled_from([None, 7]),
    linear_head_dim=st.sampled_from([4, 6]),
    linear_num_heads=st.sampled_from([1, 3]),
    linear_conv_kernel_dim=st.sampled_from([2, 4]),
    **SIZES,
).map(plain)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("kimi_linear", hf)


def test_published_configs_count_layers_from_one() -> None:
    own = {"full_attn_layers": [2, 4], "kda_layers": [1, 3], "head_dim": 8, "num_heads": 3, "short_conv_kernel_size": 2}
    values = kimi_linear.to_zoo({"model_type": "kimi_linear", "num_hidden_layers": 4, "linear_attn_config": own, "num_experts": 16})
    blocks = values["blocks"]
    types = [blocks[name]["type"] for name in values["pattern"].replace("(", "").replace(")", "").split()]
    assert types == ["gated_delta", "swiglu", "mla", "moe", "gated_delta", "moe", "mla", "moe"]
    delta, experts = (next(b for b in blocks.values() if b["type"] == kind) for kind in ("gated_delta", "moe"))
    assert (delta["n_heads"], delta["head_dim"], delta["conv"], experts["n_experts"]) == (3, 8, 2, 16)
