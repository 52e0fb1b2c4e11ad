"""Jamba (arXiv:2403.19887): Mamba with norms of dt', B and C, attention without positions every few layers, and experts every few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blocks import swiglu
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, experts, hybrid
from zoo.convert.shared.layers import Place
from zoo.convert.weight_map import Entry, Rule

MODEL_TYPES = ("jamba",)
MODELS = ("jamba_52b",)
DEFAULTS: dict[str, Any] = {
    "vocab_size": 65536,
    "tie_word_embeddings": False,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "num_experts_per_tok": 2,
    "num_experts": 16,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "attn_layer_period": 8,
    "attn_layer_offset": 4,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_dt_rank": "auto",
    "mamba_conv_bias": True,
    "mamba_proj_bias": False,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS, {"num_local_experts": "num_experts"})
    experts.silu(hf)
    layers = range(hf["num_hidden_layers"])
    attention, space_, plain, mixture_ = dense.attention(hf, None), space(hf), dense.gated(hf), mixture(hf)
    mixers = [attention if i % hf["attn_layer_period"] == hf["attn_layer_offset"] else space_ for i in layers]
    sparse = [hf["num_experts"] > 1 and i % hf["expert_layer_period"] == hf["expert_layer_offset"] for i in layers]
    return dense.model(hf, experts.mixed(mixers, plain, mixture_, sparse))


def space(hf: Mapping[str, Any]) -> dict[str, Any]:
    """The Mamba of a config.json."""
    return {
        "type": "mamba1",
        "d_state": hf["mamba_d_state"],
        "expand": float(hf["mamba_expand"]),
        "conv": hf["mamba_d_conv"],
        "conv_bias": bool(hf["mamba_conv_bias"]),
        "bias": bool(hf["mamba_proj_bias"]),
        "dt_rank": None if hf["mamba_dt_rank"] == "auto" else hf["mamba_dt_rank"],
        "norm_bcdt": "weighted",
        "norm_eps": hf["rms_norm_eps"],
    }


def mixture(hf: Mapping[str, Any]) -> dict[str, Any]:
    """The experts of a config.json, as wide as the dense channel mixer."""
    sizes = {"n_experts": hf["num_experts"], "top_k": hf["num_experts_per_tok"], "hidden": hf["intermediate_size"]}
    return {"type": "moe", **sizes, "normalize": False}


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = hybrid.Layers(config, "jamba", "mamba1", ("swiglu", "moe"))
    mixer, channel = layers.space, layers.pairs[0][1]
    attends, sparse = periodic(layers.attends), periodic(layers.sparse)
    moe = next((c for _, c in layers.pairs if experts.is_moe(c)), None)
    return layers.to_hf(config, "Jamba", "jamba", swiglu.Config(hidden=channel.hidden)) | {
        "num_experts": 1 if moe is None else moe.n_experts,
        "num_experts_per_tok": 1 if moe is None else moe.top_k,
        "attn_layer_period": attends[0],
        "attn_layer_offset": attends[1],
        "expert_layer_period": sparse[0],
        "expert_layer_offset": sparse[1],
        "mamba_d_state": mixer.d_state,
        "mamba_d_conv": mixer.conv,
        "mamba_expand": mixer.inner(config.d_model) // config.d_model,
        "mamba_dt_rank": mixer.dt_rank,
        "mamba_conv_bias": mixer.conv_bias,
        "mamba_proj_bias": mixer.bias,
    }


def periodic(chosen: Sequence[bool]) -> tuple[int, int]:
    """(period, offset) of the chosen layers, as the first two say; that the others follow is seen when the config is read back."""
    layers = [layer for layer, is_chosen in enumerate(chosen) if is_chosen]
    if not layers:
        return len(chosen) + 1, len(chosen)
    period = layers[1] - layers[0] if len(layers) > 1 else len(chosen)
    return period, layers[0] % period


def rules(config: ModelConfig) -> list[Entry]:
    entries = hybrid.surroundings(config)
    for layer, mixer, channel in experts.pairs(config):
        hf = f"model.layers.{layer}"
        entries += [*hybrid.mixer_rules(mixer, hf), *channel_rules(channel, f"{hf}.feed_forward")]
    return entries


def channel_rules(place: Place, hf: str) -> list[Rule]:
    """A SwiGLU, or experts and their router."""
    if place.type == "swiglu":
        return dense.gated_rules(place, hf)
    return [*experts.expert_rules(place, f"{hf}.experts"), *experts.router_rules(place, f"{hf}.router")]
