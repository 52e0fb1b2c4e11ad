"""GPT-2 against GPT2LMHeadModel: learned positions, layer norms, transposed projections."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import VOCAB

CONFIGS = st.fixed_dictionaries(
    {
        "model_type": st.just("gpt2"),
        "vocab_size": st.just(VOCAB),
        "n_head": st.sampled_from([1, 3]),
        "n_embd": st.sampled_from([12, 30]),
        "n_layer": st.sampled_from([1, 3]),
        "n_inner": st.sampled_from([None, 7]),
        "n_positions": st.sampled_from([16, 40]),
        "activation_function": st.sampled_from(["gelu_new", "gelu"]),
        "layer_norm_epsilon": st.sampled_from([1e-5, 1e-3]),
        "tie_word_embeddings": st.booleans(),
        "bos_token_id": st.none(),
        "eos_token_id": st.none(),
    }
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("gpt2", hf)
