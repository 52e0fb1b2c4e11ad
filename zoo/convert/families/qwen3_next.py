"""Qwen3-Next: three layers of Gated DeltaNet for one of gated attention, many small experts and a gated shared one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks import swiglu
from zoo.config.model import ModelConfig
from zoo.convert.shared import delta, dense, experts, rope
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("qwen3_next",)
MODELS = ("qwen3_next_80b_a3b",)
DEFAULTS: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "partial_rotary_factor": 0.25,
    "attention_bias": False,
    "head_dim": 256,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "decoder_sparse_step": 1,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
    "num_experts_per_tok": 10,
    "num_experts": 512,
    "norm_topk_prob": True,
    "mlp_only_layers": None,
    "layer_types": None,
    "full_attention_interval": 4,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    n, skipped = hf["num_hidden_layers"], hf["mlp_only_layers"] or ()
    sparse = [i not in skipped and hf["num_experts"] > 0 and (i + 1) % hf["decoder_sparse_step"] == 0 for i in range(n)]
    return model(hf, experts.mixed(mixers(hf), dense.gated(hf), mixture(hf), sparse))


def mixers(hf: Mapping[str, Any]) -> list[Any]:
    """The mixer of each layer."""
    attention = delta.gated_attention(hf, rope.to_zoo(hf, 10000.0, partial=True))
    return delta.chosen(delta.layer_types(hf), delta.mixer(hf, norm_eps=hf["rms_norm_eps"]), attention)


def mixture(hf: Mapping[str, Any]) -> dict[str, Any]:
    """The experts of a config.json."""
    experts.silu(hf)
    moe = {"type": "moe", "n_experts": hf["num_experts"], "top_k": hf["num_experts_per_tok"], "hidden": hf["moe_intermediate_size"]}
    moe |= {"shared_hidden": hf["shared_expert_intermediate_size"], "shared_gate": True}
    return moe if hf["norm_topk_prob"] else moe | {"normalize": False}


def model(hf: Mapping[str, Any], sublayers: Any) -> dict[str, Any]:
    """A model mapping with Qwen's norms."""
    return dense.model(hf, sublayers, norm="rmsnorm_centred")


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = experts.only(config, "qwen3_next", "gqa", "gated_delta")
    moe, plain = experts.mixture(config, layers, "qwen3_next"), experts.first(layers, swiglu.Config)
    channel = swiglu.Config(hidden=moe.hidden) if plain is None else plain
    return common_to_hf(config, layers, "Qwen3Next", "qwen3_next", channel) | {
        **mixture_to_hf(moe),
        "norm_topk_prob": moe.normalize,
        "mlp_only_layers": [i for i, (_, c) in enumerate(layers) if not experts.is_moe(c)],
    }


def common_to_hf(config: ModelConfig, layers: Any, name: str, model_type: str, channel: Any) -> dict[str, Any]:
    """The keys of config.json about mixers, widths and dense channel mixers."""
    attention, rule = delta.mixers(config, layers, model_type)
    share = 1.0 if attention.rope is None else attention.rope.partial
    common = dense.to_hf(config, name, model_type, [(attention, channel)] * len(layers)) | delta.to_hf(layers, rule)
    return common | {"rope_parameters": common["rope_parameters"] | {"partial_rotary_factor": share}}


def mixture_to_hf(moe: Any) -> dict[str, Any]:
    """The keys of config.json about experts."""
    return {
        "moe_intermediate_size": moe.hidden,
        "shared_expert_intermediate_size": moe.shared_hidden,
        "num_experts": moe.n_experts,
        "num_experts_per_tok": moe.top_k,
    }


def rules(config: ModelConfig) -> list[Entry]:
    return delta.rules(config, delta.fused_rules)
