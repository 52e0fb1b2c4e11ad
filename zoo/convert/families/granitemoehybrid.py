"""Granite 4 (IBM): Mamba-2 and attention, each followed by experts and a shared network or by that network alone, and Granite's factors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks import swiglu
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, experts, hybrid, rope
from zoo.convert.shared.layers import Place
from zoo.convert.weight_map import Entry, Rule
from zoo.convert.weight_ops import Split

MODEL_TYPES = ("granitemoehybrid",)
MODELS = ("granite4_h_tiny",)
DEFAULTS: dict[str, Any] = {
    **hybrid.MAMBA,
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "embedding_multiplier": 1.0,
    "logits_scaling": 1.0,
    "residual_multiplier": 1.0,
    "attention_multiplier": 1.0,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "shared_intermediate_size": 1024,
    "position_embedding_type": None,
    "layer_types": None,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS, {"layers_block_type": "layer_types"})
    experts.silu(hf)
    turns = rope.to_zoo(hf, 10000.0) if hf["position_embedding_type"] == "rope" else None
    made = {"full_attention": dense.attention(hf, turns, scale=float(hf["attention_multiplier"])), "linear_attention": hybrid.dual(hf)}
    n = hf["num_hidden_layers"]
    kinds = hybrid.kinds(hf["layer_types"] or ["linear_attention"] * n)
    factors = {
        "embedding_scale": float(hf["embedding_multiplier"]),
        "residual_scale": float(hf["residual_multiplier"]),
        "logit_scale": 1 / hf["logits_scaling"],
    }
    return dense.model(hf, hybrid.sublayers([made[kind] for kind in kinds], [channel(hf)] * n), **factors)


def channel(hf: Mapping[str, Any]) -> dict[str, Any]:
    """Experts and a shared network, or where there are no experts that network alone."""
    if not hf["num_local_experts"]:
        return {"type": "swiglu", "hidden": hf["shared_intermediate_size"]}
    return {
        "type": "moe",
        "n_experts": hf["num_local_experts"],
        "top_k": hf["num_experts_per_tok"],
        "hidden": hf["intermediate_size"],
        "shared_hidden": hf["shared_intermediate_size"],
    }


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = hybrid.Layers(config, "granitemoehybrid", "mamba2", ("swiglu", "moe"))
    mixer = layers.pairs[0][1]
    if experts.is_moe(mixer):
        sizes = {"num_local_experts": mixer.n_experts, "num_experts_per_tok": mixer.top_k, "shared_intermediate_size": mixer.shared_hidden}
    else:
        sizes = {"num_local_experts": 0, "shared_intermediate_size": mixer.hidden}
    return (
        layers.to_hf(config, "GraniteMoeHybrid", "granitemoehybrid", swiglu.Config(hidden=mixer.hidden))
        | hybrid.dual_to_hf(layers.space, config.d_model)
        | sizes
        | {
            "layer_types": ["full_attention" if attends else "linear_attention" for attends in layers.attends],
            "position_embedding_type": None if layers.attention.rope is None else "rope",
            "embedding_multiplier": config.embedding_scale,
            "residual_multiplier": config.residual_scale,
            "attention_multiplier": layers.attention.scale,
            "logits_scaling": 1 / config.logit_scale,
        }
    )


def rules(config: ModelConfig) -> list[Entry]:
    entries = hybrid.surroundings(config, ("input_layernorm", "post_attention_layernorm"), "norm")
    for layer, mixer, channel_ in experts.pairs(config):
        hf = f"model.layers.{layer}"
        entries += [*hybrid.mixer_rules(mixer, hf), *channel_rules(channel_, hf)]
    return entries


def channel_rules(place: Place, hf: str) -> list[Rule]:
    """block_sparse_moe and shared_mlp, or shared_mlp alone."""
    config: Any = place.config
    zoo, shared = place.weights, f"{hf}.shared_mlp"
    if place.type == "swiglu":
        halves = Split((config.hidden, config.hidden))
        return [
            Rule((f"{zoo}.gate.weight", f"{zoo}.up.weight"), f"{shared}.input_linear.weight", halves),
            Rule(f"{zoo}.down.weight", f"{shared}.output_linear.weight"),
        ]
    moe = f"{hf}.block_sparse_moe"
    return [
        Rule(f"{zoo}.router.weight", f"{moe}.router.layer.weight"),
        Rule(f"{zoo}.up", f"{moe}.input_linear.weight"),
        Rule(f"{zoo}.down", f"{moe}.output_linear.weight"),
        Rule(f"{zoo}.shared_up.weight", f"{shared}.input_linear.weight"),
        Rule(f"{zoo}.shared_down.weight", f"{shared}.output_linear.weight"),
    ]
