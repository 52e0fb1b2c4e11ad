"""Gemma 2 (arXiv:2408.00118): norms on both sides of a sub-layer, capped scores and logits, every second layer with a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, rope
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("gemma2",)
MODELS = ("gemma2_2b",)
DEFAULTS = {
    "vocab_size": 256000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "layer_types": None,
    "final_logit_softcapping": 30.0,
    "attn_logit_softcapping": 50.0,
    "use_bidirectional_attention": None,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    dense.refuse(hf | {"use_bidirectional_attention": bool(hf["use_bidirectional_attention"])}, use_bidirectional_attention=False)
    turns = rope.to_zoo(hf, 10000.0)
    scores = {"scale": hf["query_pre_attn_scalar"] ** -0.5, "softcap": hf["attn_logit_softcapping"]}
    attentions = [dense.attention(hf, turns, window=window, **scores) for window in dense.windows(hf, dense.periodic(hf, 2))]
    return dense.model(hf, dense.pairs(attentions, dense.gated(hf, "hidden_activation")), **surroundings(hf))


def surroundings(hf: Mapping[str, Any]) -> dict[str, Any]:
    """What Gemma 2 and 3 have around the blocks."""
    return {
        "norm": "rmsnorm_centred",
        "norm_place": "sandwich",
        "embedding_scale": hf["hidden_size"] ** 0.5,
        "logit_softcap": hf["final_logit_softcapping"],
    }


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = dense.layers(config, "gemma2")
    first = layers[0][0]
    common = dense.to_hf(config, "Gemma2", "gemma2", layers) | dense.windowed(layers)
    return common | {
        "hidden_activation": common.pop("hidden_act"),
        "query_pre_attn_scalar": round(first.scale**-2),
        "attn_logit_softcapping": first.softcap,
        "final_logit_softcapping": config.logit_softcap,
    }


def rules(config: ModelConfig) -> list[Entry]:
    return dense.rules(config)
