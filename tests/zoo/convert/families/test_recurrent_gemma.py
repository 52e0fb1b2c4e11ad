"""RecurrentGemma against RecurrentGemmaForCausalLM, whole texts: with a cache the class forgets its convolution's state after a
continuation of several tokens, so that the zoo's decoding is held to its full pass."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import DEFAULT, dense

CYCLES = (["recurrent", "attention"], ["recurrent", "recurrent", "attention"], ["attention", "recurrent"])


def with_pairs(hf: dict[str, Any]) -> dict[str, Any]:
    """Heads of which half is a whole number of pairs."""
    return hf | {"hidden_size": 8 * hf["num_attention_heads"]}


CONFIGS = dense(
    "recurrent_gemma",
    layers=3,
    free_head_dim=False,
    intermediate_size=st.sampled_from([14, 48]),
    lru_width=st.sampled_from([None, 36]),
    block_types=st.sampled_from(CYCLES),
    attention_window_size=st.sampled_from([3, 40]),
    conv1d_width=st.sampled_from([2, 4]),
    attention_bias=st.booleans(),
    rope_parameters=st.sampled_from([None, DEFAULT | {"rope_theta": 100.0, "partial_rotary_factor": 1.0}]),
    logits_soft_cap=st.sampled_from([3.0, 30.0]),
    hidden_activation=st.sampled_from(["gelu_pytorch_tanh", "gelu"]),
    rms_norm_eps=1e-3,
).map(with_pairs)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("recurrent_gemma", hf)
