"""Mamba against MambaForCausalLM."""

from operator import or_
from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import spaces

INNER = st.sampled_from([{}, {"intermediate_size": 20}])  # wins over expand
CONFIGS = st.builds(or_, spaces("mamba", time_step_rank=st.sampled_from(["auto", 3])), INNER)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("mamba", hf)
