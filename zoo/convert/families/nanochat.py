"""nanochat (Karpathy, 2025): norms without weights, also on the embeddings and, after the rotation, on queries and keys; squared ReLU.

Its rotation turns the other way: that of the zoo with the two halves of each query and key head exchanged, which no score sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, rope
from zoo.convert.shared.layers import Place, only
from zoo.convert.weight_map import Entry, linear
from zoo.convert.weight_ops import Permute

MODEL_TYPES = ("nanochat",)
MODELS = ("nanochat_d20",)
DEFAULTS = {
    "vocab_size": 50304,
    "hidden_size": 768,
    "intermediate_size": 8192,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "relu2",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "final_logit_softcapping": 15.0,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    norm = {"qk_norm": "head", "qk_norm_kind": "rmsnorm_plain", "qk_norm_after_rope": True, "norm_eps": hf["rms_norm_eps"]}
    attention = dense.attention(hf, rope.to_zoo(hf, 10000.0), **norm)
    channel = {"type": "mlp", "activation": dense.activation(hf["hidden_act"]), "hidden": hf["intermediate_size"]}
    surroundings = {"norm": "rmsnorm_plain", "embedding_norm": True, "logit_softcap": hf["final_logit_softcapping"]}
    return dense.model(hf, dense.pairs([attention] * hf["num_hidden_layers"], channel), **surroundings)


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = [(attention, channel) for attention, channel in only(config, "nanochat", "gqa", "mlp")]
    return dense.to_hf(config, "NanoChat", "nanochat", layers) | {"final_logit_softcapping": config.logit_softcap}


def rules(config: ModelConfig) -> list[Entry]:
    entries, blocks = dense.ends(config), dense.resolved(config)
    for layer in range(len(blocks) // 2):
        (attention,), (channel,) = blocks[2 * layer], blocks[2 * layer + 1]
        hf = f"model.layers.{layer}"
        entries += dense.attention_rules(attention, f"{hf}.self_attn", Permute(exchanged(attention)))
        entries += linear(f"{channel.weights}.up", f"{hf}.mlp.fc1") + linear(f"{channel.weights}.down", f"{hf}.mlp.fc2")
    return entries


def exchanged(place: Place) -> tuple[int, ...]:
    """The rows of q, k and v with the halves of each query and key head exchanged."""
    c: Any = place.config
    e, turned = c.head_dim, (c.n_heads + c.n_kv_heads) * c.head_dim
    rows = [start + (i + e // 2) % e for start in range(0, turned, e) for i in range(e)]
    return (*rows, *range(turned, turned + c.n_kv_heads * e))
