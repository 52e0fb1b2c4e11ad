"""Kimi Linear (arXiv:2510.26692): three layers of Kimi Delta Attention for one of latent attention without positions, then experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.config.model import ModelConfig
from zoo.convert.shared import delta, dense, experts, latent
from zoo.convert.shared.layers import Place
from zoo.convert.weight_map import Also, Entry, Rule
from zoo.convert.weight_ops import Squeeze

MODEL_TYPES = ("kimi_linear",)
MODELS = ("kimi_linear_48b_a3b",)
RENAMED = {  # in config.json -> in the class
    "moe_renormalize": "norm_topk_prob",
    "num_expert_group": "n_group",
    "num_experts": "num_local_experts",
    "num_experts_per_token": "num_experts_per_tok",
    "num_shared_experts": "n_shared_experts",
}
DEFAULTS: dict[str, Any] = {
    "vocab_size": 163840,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "moe_intermediate_size": 1024,
    "num_hidden_layers": 27,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "n_shared_experts": 1,
    "routed_scaling_factor": 2.446,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "qk_nope_head_dim": 128,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "num_local_experts": 256,
    "mlp_layer_types": None,
    "layer_types": None,
    "first_k_dense_replace": 1,
    "linear_head_dim": 128,
    "linear_num_heads": 32,
    "linear_conv_kernel_dim": 4,
    "linear_attn_config": {},
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(named(hf), DEFAULTS)
    dense.refuse(hf, tie_word_embeddings=False)
    attention = latent.attention({**hf, "rope_parameters": None, "rope_scaling": None}) | {"rope": None}
    return model(hf, attention, mixer(hf), layer_types(hf))


def named(hf: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json by the class's names."""
    return {**hf, **{name: hf[key] for key, name in RENAMED.items() if key in hf}}


def mixer(hf: Mapping[str, Any]) -> dict[str, Any]:
    """Kimi Delta Attention."""
    own = hf["linear_attn_config"] or {}
    width = own.get("head_dim", hf["linear_head_dim"])
    return {
        "type": "gated_delta",
        "n_heads": own.get("num_heads", hf["linear_num_heads"]),
        "head_dim": width,
        "gate": "vector",
        "gate_rank": width,
        "output_gate": "sigmoid",
        "output_gate_rank": width,
        "conv": own.get("short_conv_kernel_size", hf["linear_conv_kernel_dim"]),
        "norm_eps": hf["rms_norm_eps"],
    }


def layer_types(hf: Mapping[str, Any]) -> list[str]:
    """layer_types, or those of linear_attn_config, which counts layers from 1, or the class's own."""
    n, own = hf["num_hidden_layers"], hf["linear_attn_config"] or {}
    types = hf["layer_types"] or [delta.FULL if i and i % 4 == 0 else delta.LINEAR for i in range(n)]
    if hf["layer_types"] is None and "full_attn_layers" in own and "kda_layers" in own:
        types = [delta.FULL if i + 1 in own["full_attn_layers"] else delta.LINEAR for i in range(n)]
    return delta.layer_types({**hf, "layer_types": types})


def model(hf: Mapping[str, Any], attention: Mapping[str, Any], mixer_: Mapping[str, Any], types: Sequence[str]) -> dict[str, Any]:
    """A model mapping: mixers by their types, dense layers and mixtures by mlp_layer_types or first_k_dense_replace."""
    hf = {**hf, "n_routed_experts": hf["num_local_experts"]}
    return latent.mixed(hf, delta.chosen(types, mixer_, attention), latent.mixture(hf))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = experts.only(config, "kimi_linear", "mla", "gated_delta")
    attention, rule = delta.mixers(config, layers, "kimi_linear")
    kinds = delta.to_hf(layers, rule)
    return common_to_hf(config, layers, attention, "KimiLinear", "kimi_linear") | {
        "layer_types": kinds["layer_types"],
        "linear_num_heads": rule.n_heads,
        "linear_head_dim": rule.head_dim,
        "linear_conv_kernel_dim": rule.conv,
    }


def common_to_hf(config: ModelConfig, layers: Sequence[tuple[Any, Any]], attention: Any, name: str, model_type: str) -> dict[str, Any]:
    """The keys of config.json about attention and channel mixers, by the names of config.json."""
    common = latent.keys(config, layers, attention, name, model_type)
    common["num_local_experts"] = common.pop("n_routed_experts")
    common["model_max_length"] = common.pop("max_position_embeddings")
    del common["first_k_dense_replace"]
    common["mlp_layer_types"] = ["sparse" if experts.is_moe(channel) else "dense" for _, channel in layers]
    names = {name: key for key, name in RENAMED.items()}
    return {names.get(key, key): value for key, value in common.items()}


def rules(config: ModelConfig) -> list[Entry]:
    entries = experts.surroundings(config)
    for layer, place, channel in experts.pairs(config):
        hf = f"model.layers.{layer}"
        is_delta = place.type == "gated_delta"
        entries += _delta_rules(place, f"{hf}.self_attn") if is_delta else latent.attention_rules(place, f"{hf}.self_attn")
        entries += _channel_rules(channel, hf)
    return entries


def _delta_rules(place: Place, hf: str) -> list[Rule]:
    names = {"decay.0": "f_a_proj", "decay.1": "f_b_proj", "output_gate.0": "g_a_proj", "output_gate.1": "g_b_proj"}
    own = [Rule(f"{place.weights}.{zoo}.weight", f"{hf}.{name}.weight") for zoo, name in names.items()]
    rates = Rule(f"{place.weights}.A_log", f"{hf}.A_log", Squeeze(3), Squeeze(0), Squeeze(0))
    return [*delta.separate_rules(place, hf), *own, rates]


def _channel_rules(channel: Place, hf: str) -> list[Entry]:
    """A dense layer stands in mlp, a mixture in block_sparse_moe; transformers writes both as the latter."""
    if channel.type == "swiglu":
        names = [f"{name}_proj.weight" for name in ("gate", "up", "down")]
        also = [Also(f"{hf}.mlp.{name}", f"{hf}.block_sparse_moe.{name}") for name in names]
        return [*dense.gated_rules(channel, f"{hf}.mlp"), *also]
    inside = f"{hf}.block_sparse_moe"
    entries = [*experts.expert_rules(channel, f"{inside}.experts", ("w1", "w3", "w2")), *experts.router_rules(channel, f"{inside}.gate")]
    return [*entries, *experts.shared_rules(channel, f"{inside}.shared_experts")]
