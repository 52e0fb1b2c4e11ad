"""DiffLlama against DiffLlamaForCausalLM: differences of softmax maps."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import VOCAB, ropes

SIZES: dict[str, Any] = {
    "hidden_size": [14, 24],
    "intermediate_size": [7, 24],
    "num_hidden_layers": [1, 3],
    "num_attention_heads": [4, 8],
    "num_key_value_heads": [2, 4],
    "head_dim": [4, 6],
    "rms_norm_eps": [1e-5, 1e-3],
    "hidden_act": ["silu", "gelu"],
    "tie_word_embeddings": [False, True],
    "pad_token_id": [None],
    "max_position_embeddings": [64],
}
CONFIGS = st.fixed_dictionaries(
    {"model_type": st.just("diffllama"), "vocab_size": st.just(VOCAB), "rope_parameters": ropes()}
    | {key: st.sampled_from(values) for key, values in SIZES.items()}
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("diffllama", hf)
