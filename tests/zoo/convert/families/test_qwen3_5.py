"""The text model of Qwen3.5 against Qwen3_5ForCausalLM."""

from typing import Any

from tests.zoo.convert.families.test_qwen3_next import MIXED
from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import dense

CONFIGS = dense("qwen3_5_text", layers=3, **MIXED)


@examples(CONFIGS, count=3)
def test_parity(hf: dict[str, Any]) -> None:
    check("qwen3_5", hf)
