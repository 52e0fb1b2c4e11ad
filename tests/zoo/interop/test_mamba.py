"""Mamba against MambaForCausalLM."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.interop.parity import check, examples
from tests.zoo.interop.strategies import spaces

CONFIGS = spaces("mamba", time_step_rank=st.sampled_from(["auto", 3]))


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("mamba", hf)
