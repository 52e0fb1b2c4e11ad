"""Mistral against MistralForCausalLM: with and without a window."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import ACTIVATION, LAYERS, dense, ropes

CONFIGS = dense("mistral", layers=LAYERS, hidden_act=ACTIVATION, rope_parameters=ropes(), sliding_window=st.sampled_from([None, 1, 5, 64]))


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("mistral", hf)
