"""GLM-5 against GlmMoeDsaForCausalLM."""

from typing import Any

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import indexed

CONFIGS = indexed("glm_moe_dsa")


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("glm_moe_dsa", hf)
