"""Nemotron-H against NemotronHForCausalLM."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import dense
from zoo.convert.families import nemotron_h

HYBRID = ["linear_attention", "mlp", "full_attention", "mlp", "linear_attention"]
SPARSE = ["linear_attention", "moe", "full_attention", "mlp", "linear_attention", "moe"]


def without_mixtures_biases(hf: dict[str, Any]) -> dict[str, Any]:
    """The number of layers follows from their kinds; biases of plain MLPs only where there are no experts."""
    config = {key: value for key, value in hf.items() if key != "num_hidden_layers"}
    return config | {"mlp_bias": hf["mlp_bias"] and "moe" not in hf["layers_block_type"]}


CONFIGS = dense(
    "nemotron_h",
    layers_block_type=st.sampled_from([HYBRID, SPARSE]),
    ssm_state_size=st.sampled_from([4, 7]),
    mamba_num_heads=st.sampled_from([2, 6]),
    mamba_head_dim=st.sampled_from([3, 5]),
    n_groups=st.sampled_from([1, 2]),
    conv_kernel=st.sampled_from([2, 4]),
    chunk_size=8,
    time_step_min=st.sampled_from([0.001, 0.05]),
    use_conv_bias=st.booleans(),
    use_bias=st.booleans(),
    mlp_bias=st.booleans(),
    n_routed_experts=6,
    num_experts_per_tok=st.sampled_from([1, 2]),
    moe_intermediate_size=st.sampled_from([5, 8]),
    moe_shared_expert_intermediate_size=st.sampled_from([6, 9]),
    n_group=st.sampled_from([1, 2]),
    norm_topk_prob=st.booleans(),
    routed_scaling_factor=st.sampled_from([1.0, 2.5]),
    layer_norm_epsilon=1e-3,
    tie_word_embeddings=False,
).map(without_mixtures_biases)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("nemotron_h", hf)


def test_the_pattern_of_older_checkpoints() -> None:
    shared = {"num_attention_heads": 2, "num_key_value_heads": 1}
    assert nemotron_h.to_zoo(shared | {"hybrid_override_pattern": "M-*-ME"})["pattern"] == "M F A F M M2"
    assert nemotron_h.to_zoo(shared | {"layers_block_type": ["mamba", "attention"]})["pattern"] == "M A"
