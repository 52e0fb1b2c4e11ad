"""Mamba-2 against Mamba2ForCausalLM."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import spaces


def with_heads(hf: dict[str, Any]) -> dict[str, Any]:
    """Heads that fill the channels, in groups that divide them."""
    heads = hf["expand"] * hf["hidden_size"] // hf["head_dim"]
    return hf | {"num_heads": heads, "n_groups": hf["n_groups"] if heads % hf["n_groups"] == 0 else 1}


CONFIGS = spaces(
    "mamba2",
    head_dim=st.sampled_from([3, 6]),
    n_groups=st.sampled_from([1, 2, 3]),
    chunk_size=st.sampled_from([8, 64]),
    time_step_limit=st.sampled_from([[0.0, float("inf")], [0.01, 0.3]]),
).map(with_heads)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("mamba2", hf)
