"""DeepSeek-V3.2 against DeepseekV32ForCausalLM."""

from typing import Any

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import indexed

CONFIGS = indexed("deepseek_v32")


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("deepseek_v32", hf)
