"""OLMo 3 (and 2, arXiv:2501.00656): norms on the outputs of the sub-layers, all query (key) heads normed together; three layers with a
window to one without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, rope
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("olmo3",)
MODELS = ("olmo3_7b",)
DEFAULTS = {
    "vocab_size": 50304,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "sliding_window": 4096,
    "layer_types": None,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    turns = {True: _local(hf), False: rope.to_zoo(hf, 500000.0, "full_attention")}
    norm = {"qk_norm": "full", "norm_eps": hf["rms_norm_eps"]}
    windows = dense.windows(hf, dense.periodic(hf, 4))
    attentions = [dense.attention(hf, turns[window is not None], window=window, **norm) for window in windows]
    return dense.model(hf, dense.pairs(attentions, dense.gated(hf)), norm_place="post")


def _local(hf: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary positions of layers with a window: before transformers 5 the same base and never a scaling."""
    if "sliding_attention" in (hf.get("rope_parameters") or {}):
        return rope.to_zoo(hf, 500000.0, "sliding_attention")
    return {"base": float(hf.get("rope_theta") or 500000.0)}


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = dense.layers(config, "olmo3")
    return dense.to_hf(config, "Olmo3", "olmo3", layers) | dense.windowed(layers) | {"rope_parameters": dense.ropes_by_type(layers)}


def rules(config: ModelConfig) -> list[Entry]:
    return dense.rules(config)
