"""Mixtral against MixtralForCausalLM."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import LAYERS, dense, ropes

CONFIGS = dense(
    "mixtral",
    layers=LAYERS,
    rope_parameters=ropes(),
    sliding_window=st.sampled_from([None, 6]),
    num_local_experts=st.sampled_from([3, 5]),
    num_experts_per_tok=st.sampled_from([1, 2]),
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("mixtral", hf)
