"""SmolLM3: Llama without positions on every fourth layer (NoPE, arXiv:2501.18795)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, rope
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("smollm3",)
MODELS = ("smollm3_3b",)
DEFAULTS = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "sliding_window": None,
    "no_rope_layers": None,
    "no_rope_layer_interval": 4,
    "layer_types": None,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    n, interval = hf["num_hidden_layers"], hf["no_rope_layer_interval"]
    rotated = hf["no_rope_layers"] or [(i + 1) % interval != 0 for i in range(n)]  # 1 means that the layer has positions
    hf["sliding_window"] = hf["sliding_window"] if hf["use_sliding_window"] else None
    windowless = hf["sliding_window"] is None
    kinds = hf["layer_types"] or ["full_attention" if windowless or r else "sliding_attention" for r in rotated]
    turns = rope.to_zoo(hf, 2000000.0)
    layers = zip(dense.windows(hf, kinds), rotated, strict=False)
    attentions = [dense.attention(hf, turns if positions else None, window=window) for window, positions in layers]
    return dense.model(hf, dense.pairs(attentions, dense.gated(hf)))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = dense.layers(config, "smollm3")
    windows = dense.windowed(layers)
    turns = next((attention.rope for attention, _ in layers if attention.rope is not None), None)
    more = {
        "mlp_bias": layers[0][1].bias,
        "use_sliding_window": windows["sliding_window"] is not None,
        "no_rope_layers": [int(attention.rope is not None) for attention, _ in layers],
        "rope_parameters": rope.to_hf(turns),
    }
    return dense.to_hf(config, "SmolLM3", "smollm3", layers) | windows | more


def rules(config: ModelConfig) -> list[Entry]:
    return dense.rules(config)
