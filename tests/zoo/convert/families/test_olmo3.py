"""OLMo 3 against Olmo3ForCausalLM: norms behind the sub-layers, all heads normed together."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import ACTIVATION, DEFAULT, dense, ropes

CONFIGS = dense(
    "olmo3",
    layers=3,
    hidden_act=ACTIVATION,
    rope_parameters=st.fixed_dictionaries({"sliding_attention": ropes(DEFAULT), "full_attention": ropes()}),
    attention_bias=st.booleans(),
    sliding_window=st.sampled_from([1, 6]),
    layer_types=st.permutations(["sliding_attention", "sliding_attention", "full_attention"]),
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("olmo3", hf)
