"""Nemotron-H (arXiv:2504.03624): each layer is one of Mamba-2, attention without positions, a squared-ReLU MLP, or experts.

The class in transformers keeps dt at or above time_step_min, reads no time_step_limit, and always has a head of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from blocks import gqa, mamba2, mlp, moe
from blocks.base import Config
from blocks.errors import ConfigError, one_of
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, experts, hybrid, latent, state_spaces
from zoo.convert.shared.layers import Place
from zoo.convert.weight_map import Entry, LeftOut, Rule, linear

MODEL_TYPES = ("nemotron_h",)
MODELS = ("nemotron_h_8b",)
UNREAD = ("expand", "num_nextn_predict_layers", "time_step_limit")
DEFAULTS: dict[str, Any] = {
    "vocab_size": 131072,
    "hidden_size": 4096,
    "layers_block_type": None,
    "hybrid_override_pattern": None,
    "tie_word_embeddings": False,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 21504,
    "mlp_hidden_act": "relu2",
    "mlp_bias": False,
    "attention_bias": False,
    "mamba_proj_bias": False,
    "sliding_window": None,
    "n_shared_experts": 1,
    "ssm_state_size": 128,
    "mamba_num_heads": 128,
    "mamba_head_dim": 64,
    "mamba_hidden_act": "silu",
    "n_groups": 8,
    "conv_kernel": 4,
    "time_step_min": 0.001,
    "use_conv_bias": True,
    "use_bias": False,
    "n_routed_experts": 8,
    "moe_intermediate_size": 7688,
    "moe_shared_expert_intermediate_size": 7688,
    "moe_latent_size": None,
    "num_experts_per_tok": 2,
    "routed_scaling_factor": 1.0,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "layer_norm_epsilon": 1e-5,
}
ALIASES = {
    "layer_types": "layers_block_type",
    "num_local_experts": "n_routed_experts",
    "mamba_n_groups": "n_groups",
    "mamba_d_conv": "conv_kernel",
    "mamba_conv_bias": "use_conv_bias",
    "mamba_dt_min": "time_step_min",
}
LETTERS = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
TYPES = {"mamba2": "linear_attention", "gqa": "full_attention", "mlp": "mlp", "moe": "moe"}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS, ALIASES)
    dense.refuse(hf, mamba_hidden_act="silu", tie_word_embeddings=False, attention_bias=False, mamba_proj_bias=False)
    dense.refuse(hf, sliding_window=None, n_shared_experts=1)
    made = {"linear_attention": space, "full_attention": attention, "mlp": plain, "moe": mixture}
    return dense.model(hf, [[made[kind](hf)] for kind in kinds(hf)], norm_eps=hf["layer_norm_epsilon"])


def kinds(hf: Mapping[str, Any]) -> list[str]:
    """The kind of each layer. Raises ConfigError."""
    names = hf["layers_block_type"]
    if names is None:
        letters = "ME*-" if hf["hybrid_override_pattern"] is None else hf["hybrid_override_pattern"]
        for letter in letters:
            one_of("hybrid_override_pattern", letter, tuple(LETTERS))
        names = [LETTERS[letter] for letter in letters]
    return hybrid.kinds(names, "mlp", "moe")


def space(hf: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "mamba2",
        "d_state": hf["ssm_state_size"],
        "n_heads": hf["mamba_num_heads"],
        "head_dim": hf["mamba_head_dim"],
        "n_groups": hf["n_groups"],
        "conv": hf["conv_kernel"],
        "conv_bias": bool(hf["use_conv_bias"]),
        "bias": bool(hf["use_bias"]),
        "dt_limit": [float(hf["time_step_min"]), math.inf],
        "norm_eps": hf["layer_norm_epsilon"],
    }


def attention(hf: Mapping[str, Any]) -> dict[str, Any]:
    return dense.attention(hf, None)


def plain(hf: Mapping[str, Any]) -> dict[str, Any]:
    spec = {"type": "mlp", "activation": dense.activation(hf["mlp_hidden_act"]), "hidden": hf["intermediate_size"]}
    return spec | ({"bias": True} if hf["mlp_bias"] else {})


def mixture(hf: Mapping[str, Any]) -> dict[str, Any]:
    dense.refuse(hf, mlp_hidden_act="relu2", mlp_bias=False, moe_latent_size=None)
    return {
        "type": "moe",
        "activation": "relu2",
        "n_experts": hf["n_routed_experts"],
        "top_k": hf["num_experts_per_tok"],
        "hidden": hf["moe_intermediate_size"],
        "scores": "sigmoid",
        "selection_bias": True,
        "normalize": bool(hf["norm_topk_prob"]),
        "routed_scale": float(hf["routed_scaling_factor"]),
        "shared_hidden": hf["moe_shared_expert_intermediate_size"],
        **latent.grouped(hf),
    }


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = []
    for branches in dense.resolved(config):
        here = "|".join(place.type for place in branches)
        if here not in TYPES:
            raise ConfigError("pattern", config.pattern, f"nemotron_h has layers of {', '.join(TYPES)}; one here is {here}")
        layers.append(branches[0])
    first = {place.type: place.config for place in reversed(layers)}
    hf = {
        "model_type": "nemotron_h",
        "architectures": ["NemotronHForCausalLM"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "layers_block_type": [TYPES[place.type] for place in layers],
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "max_position_embeddings": dense.LONGEST,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    for block in first.values():
        hf |= block_to_hf(block)
    return hf


def block_to_hf(block: Config) -> dict[str, Any]:
    """The keys of config.json of one of the four kinds of layers."""
    match block:
        case mamba2.Config():
            return {
                "ssm_state_size": block.d_state,
                "mamba_num_heads": block.n_heads,
                "mamba_head_dim": block.head_dim,
                "n_groups": block.n_groups,
                "conv_kernel": block.conv,
                "use_conv_bias": block.conv_bias,
                "use_bias": block.bias,
                "time_step_min": block.dt_limit[0],
            }
        case gqa.Config():
            return {"num_attention_heads": block.n_heads, "num_key_value_heads": block.n_kv_heads, "head_dim": block.head_dim}
        case mlp.Config():
            act = dense.ACTIVATIONS_OUT[block.activation]
            return {"intermediate_size": block.hidden, "mlp_hidden_act": act, "mlp_bias": block.bias}
        case moe.Config():
            return {
                "n_routed_experts": block.n_experts,
                "num_experts_per_tok": block.top_k,
                "moe_intermediate_size": block.hidden,
                "moe_shared_expert_intermediate_size": block.shared_hidden,
                "n_group": block.groups,
                "topk_group": block.top_groups,
                "norm_topk_prob": block.normalize,
                "routed_scaling_factor": block.routed_scale,
            }
    raise TypeError(block)


def rules(config: ModelConfig) -> list[Entry]:
    """The weight map; mtp.* predicts further tokens and is no part of the model."""
    entries: list[Entry] = [
        LeftOut("mtp.*"),
        Rule("embedding.weight", "backbone.embeddings.weight"),
        *linear("norm", "backbone.norm_f"),
        Rule("head.weight", "lm_head.weight"),
    ]
    for layer, (place,) in enumerate(dense.resolved(config)):
        hf = f"backbone.layers.{layer}"
        entries += [*linear(f"stack.norms.{layer}", f"{hf}.norm"), *block_rules(place, f"{hf}.mixer")]
    return entries


def block_rules(place: Place, hf: str) -> list[Rule]:
    """One of the four kinds of layers."""
    zoo: Any = place.weights
    if place.type == "mamba2":
        return state_spaces.dual_rules(zoo, hf)
    if place.type == "gqa":
        return dense.attention_rules(place, hf)
    if place.type == "mlp":
        return [rule for name in ("up", "down") for rule in linear(f"{zoo}.{name}", f"{hf}.{name}_proj")]
    config: Any = place.config
    rules = experts.router_rules(place, f"{hf}.gate")
    for name in ("up", "down"):
        each = [f"{hf}.experts.{e}.{name}_proj.weight" for e in range(config.n_experts)]
        rules += [
            Rule(f"{zoo}.{name}", each, experts.PerExpert()),
            *linear(f"{zoo}.shared_{name}", f"{hf}.shared_experts.{name}_proj"),
        ]
    return rules
