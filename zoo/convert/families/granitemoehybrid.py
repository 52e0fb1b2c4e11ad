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
    found = hybrid.Layers(config, "granitemoehybrid", "mamba2", ("swiglu", "moe"))
    mixer = found.pairs[0][1]
    if experts.is_moe(mixer):
        sizes = {"num_local_experts": mixer.n_experts, "num_experts_per_tok": mixer.top_k, "shared_intermediate_size": mixer.shared_hidden}
    else:
        sizes = {"num_local_experts": 0, "shared_intermediate_size": mixer.hidden}
    return (
        found.to_hf(config, "GraniteMoeHybrid", "granitemoehybrid", swiglu.Config(hidden=mixer.hidden))
        | hybrid.dual_to_hf(found.space, config.d_model)
        | sizes
        | {
            "layer_types": ["full_attention" if attends else "linear_attention" for attends in found.attends],
            "position_embedding_type": None if found.attention.rope is None else "rope",
            "embedding_multiplier": config.embedding_scale,
            "residual_multiplier": config.residual_scale,
            "attention_multiplier": found.attention.scale,
            "logits_scaling": 1 / config.logit_scale,
        }
    )


def rules(config: ModelConfig) -> list[Entry]:
    found = hybrid.surroundings(config, ("input_layernorm", "post_attention_layernorm"), "norm")
    for layer, mixer, channel_ in experts.pairs(config):
        theirs = f"model.layers.{layer}"
        found += [*hybrid.mixer_rules(mixer, theirs), *channel_rules(channel_, theirs)]
    return found


def channel_rules(place: Place, theirs: str) -> list[Rule]:
    """block_sparse_moe and shared_mlp, or shared_mlp alone."""
    config: Any = place.config
    ours, shared = place.weights, f"{theirs}.shared_mlp"
    if place.type == "swiglu":
        halves = Split((config.hidden, config.hidden))
        return [
            Rule((f"{ours}.gate.weight", f"{ours}.up.weight"), f"{shared}.input_linear.weight", halves),
            Rule(f"{ours}.down.weight", f"{shared}.output_linear.weight"),
        ]
    moe = f"{theirs}.block_sparse_moe"
    return [
        Rule(f"{ours}.router.weight", f"{moe}.router.layer.weight"),
        Rule(f"{ours}.up", f"{moe}.input_linear.weight"),
        Rule(f"{ours}.down", f"{moe}.output_linear.weight"),
        Rule(f"{ours}.shared_up.weight", f"{shared}.input_linear.weight"),
        Rule(f"{ours}.shared_down.weight", f"{shared}.output_linear.weight"),
    ]
