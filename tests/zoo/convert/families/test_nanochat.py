"""nanochat against NanoChatForCausalLM: norms without weights, a rotation the other way."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import LAYERS, dense, ropes

CONFIGS = dense(
    "nanochat",
    layers=LAYERS,
    hidden_act=st.sampled_from(["relu2", "gelu"]),
    free_head_dim=False,
    rope_parameters=ropes(),
    attention_bias=st.booleans(),
    final_logit_softcapping=st.sampled_from([None, 3.0]),
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("nanochat", hf)
