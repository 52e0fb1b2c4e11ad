"""Falcon-Mamba against FalconMambaForCausalLM."""

from operator import or_
from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.families.test_mamba import INNER
from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import spaces

MIXER = {"time_step_rank": st.sampled_from(["auto", 3]), "mixer_rms_eps": st.sampled_from([1e-6, 1e-2])}
CONFIGS = st.builds(or_, spaces("falcon_mamba", **MIXER), INNER)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("falcon_mamba", hf)
