"""Falcon-Mamba against FalconMambaForCausalLM."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.interop.parity import check, examples
from tests.zoo.interop.strategies import spaces

CONFIGS = spaces("falcon_mamba", time_step_rank=st.sampled_from(["auto", 3]), mixer_rms_eps=st.sampled_from([1e-6, 1e-2]))


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("falcon_mamba", hf)
