"""DiffLlama (arXiv:2410.05258): Llama whose heads are differences of two softmax maps, head n and head n + half of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks import differential, gqa
from blocks.errors import require
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, rope
from zoo.convert.shared.layers import only
from zoo.convert.weight_map import Entry, Rule, linear
from zoo.convert.weight_ops import Concat

MODEL_TYPES = ("diffllama",)
MODELS = ("diffllama",)
DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "attention_bias": False,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    dense.refuse(hf, attention_bias=False)
    heads, kv_heads = hf["num_attention_heads"], hf["num_key_value_heads"] or hf["num_attention_heads"]
    require(heads % 2 == 0, "num_attention_heads", heads, "must be even: heads are differences of two")
    require(kv_heads % 2 == 0, "num_key_value_heads", kv_heads, "must be even: heads are differences of two")
    attention = {
        "type": "differential",
        "n_heads": heads // 2,
        "n_kv_heads": kv_heads // 2,
        "head_dim": hf["head_dim"] or hf["hidden_size"] // heads,
        "pairing": "halves",
        "rope": rope.to_zoo(hf, 10000.0),
        "norm_affine": False,
        "norm_eps": hf["rms_norm_eps"],
    }
    return dense.model(hf, dense.pairs([attention] * hf["num_hidden_layers"], dense.gated(hf)))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = only(config, "diffllama", "differential", "swiglu")
    plain = [
        (gqa.Config(n_heads=2 * a.n_heads, n_kv_heads=2 * a.n_kv_heads, head_dim=a.head_dim, rope=a.rope), channel) for a, channel in layers
    ]
    return dense.to_hf(config, "DiffLlama", "diffllama", plain)


def rules(config: ModelConfig) -> list[Entry]:
    entries, blocks = dense.ends(config), dense.resolved(config)
    for layer in range(len(blocks) // 2):
        (attention,), (channel,) = blocks[2 * layer], blocks[2 * layer + 1]
        hf, c = f"model.layers.{layer}", attention.config
        assert isinstance(c, differential.Config)
        sizes = (2 * c.n_heads * c.width(config.d_model), *2 * (2 * c.kv_heads * c.width(config.d_model),))
        entries += linear(f"{attention.weights}.qkv", [f"{hf}.self_attn.{name}_proj" for name in "qkv"], Concat(sizes))
        entries += linear(f"{attention.weights}.out", f"{hf}.self_attn.o_proj")
        lambdas = [f"lambda_{name}" for name in ("q1", "k1", "q2", "k2")]
        entries += [Rule(f"{attention.weights}.{name}", f"{hf}.self_attn.{name}") for name in lambdas]
        entries += dense.gated_rules(channel, f"{hf}.mlp") + dense.norm_rules(config, layer, hf)
    return entries
