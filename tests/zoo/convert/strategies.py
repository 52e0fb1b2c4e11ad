"""Small config.json dictionaries of Llama-shaped models: head counts, groups, widths that are no multiples, rotary positions."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

VOCAB = 61
DEFAULT = {"rope_type": "default"}
LINEAR = {"rope_type": "linear", "factor": 2.5}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 4.0, "beta_slow": 0.5}
BARE = {"rope_type": "yarn", "factor": 4.0}  # its original length is max_position_embeddings
MSCALE = YARN | {"mscale": 0.7, "mscale_all_dim": 0.9}
SCALINGS: tuple[dict[str, Any], ...] = (DEFAULT, LINEAR, LLAMA3, YARN, BARE)
ACTIVATION = st.sampled_from(["silu", "gelu", "gelu_pytorch_tanh"])
LAYERS = st.sampled_from([1, 2, 3])
FACTORS = {  # Granite's
    "embedding_multiplier": st.sampled_from([1.0, 12.0]),
    "residual_multiplier": st.sampled_from([1.0, 0.22]),
    "attention_multiplier": st.sampled_from([0.25, 0.0625]),
    "logits_scaling": st.sampled_from([1.0, 7.0]),
}


def ropes(*kinds: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """rope_parameters."""
    return st.builds(lambda kind, theta: kind | {"rope_theta": theta}, st.sampled_from(kinds or SCALINGS), st.sampled_from([100.0, 1e4]))


@st.composite
def dense(
    draw: st.DrawFn, model_type: str, *, layers: int | st.SearchStrategy[int] = 2, free_head_dim: bool = True, **more: Any
) -> dict[str, Any]:
    """Keys of a config.json; more: others, plain values or strategies."""
    groups, kv_heads = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 2]))
    heads, head_dim = groups * kv_heads, draw(st.sampled_from([4, 6, 10]))
    sizes: dict[str, Any] = {
        "model_type": model_type,
        "vocab_size": VOCAB,
        "hidden_size": heads * draw(st.sampled_from([6, 14])) if free_head_dim else heads * head_dim,
        "intermediate_size": draw(st.sampled_from([7, 24])),
        "num_hidden_layers": draw(layers) if isinstance(layers, st.SearchStrategy) else layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": draw(st.sampled_from([1e-5, 1e-3])),
        "max_position_embeddings": 64,
        "tie_word_embeddings": draw(st.booleans()),
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    sizes |= {"head_dim": head_dim} if free_head_dim else {}
    return sizes | {key: draw(value) if isinstance(value, st.SearchStrategy) else value for key, value in more.items()}


def latent(model_type: str, **more: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Keys of a config.json with latent attention and experts, a dense layer first; more: others, plain values or strategies."""
    sizes: dict[str, Any] = {
        "kv_lora_rank": st.sampled_from([5, 12]),
        "q_lora_rank": st.sampled_from([7, 10]),
        "qk_nope_head_dim": st.sampled_from([4, 6]),
        "qk_rope_head_dim": st.sampled_from([2, 4]),
        "v_head_dim": st.sampled_from([3, 6]),
        "moe_intermediate_size": st.sampled_from([5, 8]),
        "n_routed_experts": 6,
        "num_experts_per_tok": st.sampled_from([2, 3]),
        "n_shared_experts": st.sampled_from([1, 2]),
        "rope_parameters": ropes(*SCALINGS, MSCALE),
        "routed_scaling_factor": st.sampled_from([1.0, 2.5]),
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": st.sampled_from([1, 0]),
    }
    shaped = dense(model_type, free_head_dim=False, **sizes | more)
    return shaped.map(lambda hf: hf | {"num_key_value_heads": hf["num_attention_heads"]})


def indexed(model_type: str) -> st.SearchStrategy[dict[str, Any]]:
    """Keys of `latent` with an indexer: of 16 heads, so that no two keys score the same."""
    return latent(
        model_type,
        norm_topk_prob=st.booleans(),
        n_group=st.sampled_from([1, 3]),
        num_experts_per_tok=2,
        attention_bias=st.booleans(),
        index_n_heads=16,
        index_head_dim=st.sampled_from([6, 9]),
        index_topk=st.sampled_from([4, 40]),
    )


@st.composite
def spaces(draw: st.DrawFn, model_type: str, **more: Any) -> dict[str, Any]:
    """Keys of a config.json of stacked state spaces; more: others, plain values or strategies."""
    sizes: dict[str, Any] = {
        "model_type": model_type,
        "vocab_size": VOCAB,
        "hidden_size": draw(st.sampled_from([12, 18])),
        "state_size": draw(st.sampled_from([4, 7])),
        "num_hidden_layers": 2,
        "expand": draw(st.sampled_from([1, 2])),
        "conv_kernel": draw(st.sampled_from([2, 4])),
        "use_bias": draw(st.booleans()),
        "use_conv_bias": draw(st.booleans()),
        "layer_norm_epsilon": 1e-3,
        "tie_word_embeddings": draw(st.booleans()),
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return sizes | {key: draw(value) if isinstance(value, st.SearchStrategy) else value for key, value in more.items()}


def mamba() -> dict[str, Any]:
    """Keys of a config.json for Mamba-2 beside attention."""
    return {
        "mamba_n_heads": st.sampled_from([2, 4]),
        "mamba_d_state": st.sampled_from([4, 7]),
        "mamba_n_groups": st.sampled_from([1, 2]),
        "mamba_d_conv": st.sampled_from([2, 4]),
        "mamba_conv_bias": st.booleans(),
        "mamba_proj_bias": st.booleans(),
        "mamba_chunk_size": 8,
        "time_step_limit": st.sampled_from([[0.0, float("inf")], [0.01, 0.3]]),
        "rms_norm_eps": 1e-3,
    }
