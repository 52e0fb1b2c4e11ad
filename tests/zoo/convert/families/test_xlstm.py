"""xLSTM against xLSTMForCausalLM, whole texts: its cache rounds widths up to multiples of 64, so that decoding is held to its full pass.
A chunk of 3 or 8 tokens leaves a rest that the class walks token by token."""

from typing import Any

from hypothesis import strategies as st

from tests.zoo.convert.parity import check, examples
from tests.zoo.convert.strategies import VOCAB


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.sampled_from([1, 2, 3]))
    return {
        "model_type": "xlstm",
        "vocab_size": VOCAB,
        "hidden_size": 6 * heads,
        "embedding_dim": 6 * heads,
        "num_hidden_layers": 2,
        "num_blocks": 2,
        "num_heads": heads,
        "qk_dim_factor": draw(st.sampled_from([0.5, 1.0])),
        "v_dim_factor": draw(st.sampled_from([1.0, 1.5])),
        "ffn_proj_factor": draw(st.sampled_from([2.667, 1.3])),
        "ffn_round_up_to_multiple_of": draw(st.sampled_from([1, 8])),
        "gate_soft_cap": draw(st.sampled_from([2.0, 15.0])),
        "output_logit_soft_cap": draw(st.sampled_from([3.0, 30.0])),
        "norm_eps": 1e-3,
        "eps": draw(st.sampled_from([1e-6, 1e-2])),
        "chunk_size": draw(st.sampled_from([3, 8, 64])),
        "autocast_kernel_dtype": "float32",
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }


CONFIGS = configs()


@examples(CONFIGS)
def test_parity(hf: dict[str, Any]) -> None:
    check("xlstm", hf)
