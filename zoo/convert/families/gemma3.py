"""Gemma 3, text (arXiv:2503.19786): Gemma 2 with a norm of each query and key head instead of capped scores, five layers with a window to
one without, and two bases of rotary positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.model import ModelConfig
from zoo.convert.families import gemma2
from zoo.convert.shared import dense, rope
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("gemma3_text",)
MODELS = ("gemma3_1b",)
DEFAULTS = gemma2.DEFAULTS | {
    "vocab_size": 262208,
    "sliding_window_pattern": 6,
    "final_logit_softcapping": None,
    "attn_logit_softcapping": None,
    "use_bidirectional_attention": False,
    "rope_local_base_freq": None,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    dense.refuse(hf, use_bidirectional_attention=False, attn_logit_softcapping=None)
    turns = {True: _local(hf), False: rope.to_zoo(hf, 1000000.0, "full_attention")}
    more = {"qk_norm": "head", "qk_norm_kind": "rmsnorm_centred", "norm_eps": hf["rms_norm_eps"]}
    more |= {"scale": hf["query_pre_attn_scalar"] ** -0.5}
    windows = dense.windows(hf, dense.periodic(hf, hf["sliding_window_pattern"]))
    attentions = [dense.attention(hf, turns[window is not None], window=window, **more) for window in windows]
    return dense.model(hf, dense.pairs(attentions, dense.gated(hf, "hidden_activation")), **gemma2.surroundings(hf))


def _local(hf: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary positions of layers with a window: before transformers 5 a base of their own and never a scaling."""
    if "sliding_attention" in (hf.get("rope_parameters") or {}):
        return rope.to_zoo(hf, 10000.0, "sliding_attention")
    return {"base": float(hf["rope_local_base_freq"] or 10000.0)}


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = dense.layers(config, "gemma3")
    first = layers[0][0]
    common = dense.to_hf(config, "Gemma3", "gemma3_text", layers) | dense.windowed(layers)
    return common | {
        "rope_parameters": dense.ropes_by_type(layers),
        "hidden_activation": common.pop("hidden_act"),
        "query_pre_attn_scalar": round(first.scale**-2),
        "final_logit_softcapping": config.logit_softcap,
    }


def rules(config: ModelConfig) -> list[Entry]:
    return dense.rules(config)
