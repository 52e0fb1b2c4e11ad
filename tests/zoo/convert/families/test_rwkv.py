"""RWKV-4 against RwkvForCausalLM, whole texts: with a cache the class mixes the rows of a batch in single-token steps, so that the
zoo's decoding is held to its full pass."""

from typing import Any

import torch
from hypothesis import strategies as st

from tests.oracle import error
from tests.zoo.convert.parity import check, examples, hf_logits, hf_model
from tests.zoo.convert.strategies import VOCAB

SIZES = {
    "model_type": "rwkv",
    "vocab_size": VOCAB,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}


CONFIGS = st.fixed_dictionaries(
    {
        **{key: st.just(value) for key, value in SIZES.items()},
        "hidden_size": st.sampled_from([12, 18]),
        "attention_hidden_size": st.sampled_from([None, 10]),
        "intermediate_size": st.sampled_from([None, 21]),
        "num_hidden_layers": st.sampled_from([2, 3]),
        "tie_word_embeddings": st.booleans(),
    }
)


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("rwkv", hf)


def test_single_steps_of_the_class_mix_the_rows_of_a_batch() -> None:
    """Why the zoo's decoding is not held to that of the class."""
    model = hf_model(SIZES)
    tokens = torch.randint(VOCAB, (2, 6), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(input_ids=tokens[:, :5], use_cache=True)
        mixed = model(input_ids=tokens[:, 5:], state=before.state).logits
        assert mixed.shape == (2, 2, VOCAB), "two rows of one token each come out as two rows of two"
        alone = model(input_ids=tokens[:1, :5], use_cache=True)
        step = model(input_ids=tokens[:1, 5:], state=alone.state).logits
    assert error(step, hf_logits(model, tokens[:1]).detach()[:, 5:]) < 1e-5
