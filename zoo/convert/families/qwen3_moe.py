"""Qwen3-MoE (arXiv:2505.09388): Qwen3's attention, and experts in every layer, in every few, or in all but some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks import swiglu
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, experts, rope
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("qwen3_moe",)
MODELS = ("qwen3_30b_a3b",)
DEFAULTS: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "decoder_sparse_step": 1,
    "moe_intermediate_size": 768,
    "num_experts_per_tok": 8,
    "num_experts": 128,
    "norm_topk_prob": False,
    "mlp_only_layers": None,
    "head_dim": None,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS, {"num_local_experts": "num_experts"})
    experts.silu(hf)
    window = hf["sliding_window"] if hf["use_sliding_window"] else None
    attention = dense.attention(hf, rope.to_zoo(hf, 10000.0), window=window, qk_norm="head", norm_eps=hf["rms_norm_eps"])
    moe = {
        "type": "moe",
        "n_experts": hf["num_experts"],
        "top_k": hf["num_experts_per_tok"],
        "hidden": hf["moe_intermediate_size"],
    }
    moe |= {} if hf["norm_topk_prob"] else {"normalize": False}
    n, skipped = hf["num_hidden_layers"], hf["mlp_only_layers"] or ()
    sparse = [i not in skipped and (i + 1) % hf["decoder_sparse_step"] == 0 for i in range(n)]
    return dense.model(hf, experts.mixed([attention] * n, dense.gated(hf), moe, sparse))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = experts.only(config, "qwen3_moe", "gqa")
    moe, plain = experts.mixture(config, layers, "qwen3_moe"), experts.first(layers, swiglu.Config)
    channel = swiglu.Config(hidden=moe.hidden) if plain is None else plain
    window = layers[0][0].window
    return dense.to_hf(config, "Qwen3Moe", "qwen3_moe", [(a, channel) for a, _ in layers]) | {
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "moe_intermediate_size": moe.hidden,
        "num_experts": moe.n_experts,
        "num_experts_per_tok": moe.top_k,
        "norm_topk_prob": moe.normalize,
        "mlp_only_layers": [i for i, (_, c) in enumerate(layers) if not experts.is_moe(c)],
    }


def rules(config: ModelConfig) -> list[Entry]:
    entries = experts.surroundings(config)
    for layer, attention, channel in experts.pairs(config):
        hf = f"model.layers.{layer}"
        entries += [*dense.attention_rules(attention, f"{hf}.self_attn"), *experts.deepseek_rules(channel, f"{hf}.mlp")]
    return entries
