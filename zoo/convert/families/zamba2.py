"""Zamba2 (arXiv:2411.15242): Mamba-2, and before some layers one of a few shared transformers, with adapters of each use's own.

The class in transformers always has a bias in the convolution, keeps dt at or above time_step_min, and norms Mamba-2 with an epsilon of
1e-5. Its single steps leave that bound of dt away; what is computed here is what it computes of a text at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from blocks.errors import require
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, rope, shared_transformer, state_spaces
from zoo.convert.shared.layers import Place
from zoo.convert.weight_map import Entry, Rule, linear

MODEL_TYPES = ("zamba2",)
MODELS = ("zamba2_1b2", "zamba2_2b7")
UNREAD = ("use_mem_eff_path",)
DEFAULTS: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 2560,
    "num_hidden_layers": 54,
    "layers_block_type": None,
    "mamba_d_state": 64,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_ngroups": 1,
    "time_step_min": 0.001,
    "n_mamba_heads": 8,
    "use_conv_bias": True,
    "add_bias_linear": False,
    "intermediate_size": None,
    "hidden_act": "gelu",
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "num_mem_blocks": 1,
    "use_shared_attention_adapter": False,
    "adapter_rank": 128,
    "use_mem_rope": False,
    "rms_norm_eps": 1e-5,
    "use_long_context": False,
    "tie_word_embeddings": True,
    # not the class's own, but in every config.json that it writes
    "attention_hidden_size": None,
    "attention_head_dim": None,
    "mamba_headdim": None,
    "hybrid_layer_ids": None,
}
KINDS = [  # layers_block_type where config.json has none, whatever num_hidden_layers says
    *(["linear_attention"] + (["linear_attention"] * 5 + ["hybrid"]) * 7),
    *(["linear_attention"] * 4 + ["hybrid"] + ["linear_attention"] * 3 + ["hybrid"] + ["linear_attention"] * 2),
]
NORM_EPS = 1e-5


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = shared_transformer.read(hf, DEFAULTS)
    dense.refuse(hf, use_conv_bias=True, use_long_context=False)
    kinds = hf["layers_block_type"] or KINDS
    shared_transformer.derived(hf, hybrid_layer_ids=[layer for layer, kind in enumerate(kinds) if kind == "hybrid"])
    transformers = [transformer(hf) for _ in range(hf["num_mem_blocks"])]
    return dense.model(hf, shared_transformer.sublayers(kinds, transformers, space(hf)))


def transformer(hf: Mapping[str, Any]) -> dict[str, Any]:
    """One of the shared transformers of a config.json. Raises ConfigError."""
    everywhere = bool(hf["use_shared_attention_adapter"])
    for key in ("num_attention_heads", "num_key_value_heads") if everywhere else ():
        width = 2 * hf["hidden_size"]
        rule = f"times attention_head_dim = {hf['attention_head_dim']} must be {width}, the width of its adapters"
        require(hf[key] * hf["attention_head_dim"] == width, key, hf[key], rule)
    return shared_transformer.transformer(
        hf,
        hidden=hf["intermediate_size"] or 4 * hf["hidden_size"],
        rope=rope.to_zoo(hf, 10000.0) if hf["use_mem_rope"] else None,
        bias=bool(hf["add_bias_linear"]),
        adapt="all" if everywhere else "mlp",
        adapter_rank=hf["adapter_rank"],
    )


def space(hf: Mapping[str, Any]) -> dict[str, Any]:
    """The Mamba-2 of a config.json. Raises ConfigError."""
    channels, heads = int(hf["mamba_expand"] * hf["hidden_size"]), hf["n_mamba_heads"]
    require(channels % heads == 0, "n_mamba_heads", heads, f"must divide mamba_expand * hidden_size = {channels}")
    shared_transformer.derived(hf, mamba_headdim=channels // heads)
    return {
        "type": "mamba2",
        "d_state": hf["mamba_d_state"],
        "n_heads": heads,
        "head_dim": channels // heads,
        "n_groups": hf["mamba_ngroups"],
        "conv": hf["mamba_d_conv"],
        "bias": bool(hf["add_bias_linear"]),
        "dt_limit": [float(hf["time_step_min"]), math.inf],
        "norm_eps": NORM_EPS,
    }


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = shared_transformer.layers(config, "zamba2", "mamba2")
    mixer, block = shared_transformer.first(layers)
    return shared_transformer.to_hf(config, "Zamba2", "zamba2", layers) | {
        "n_mamba_heads": mixer.n_heads,
        "mamba_ngroups": mixer.n_groups,
        "time_step_min": mixer.dt_limit[0],
        "add_bias_linear": mixer.bias,
        "num_mem_blocks": len({layer.transformer.weights for layer in layers if layer.transformer is not None}),
        "use_shared_attention_adapter": block.adapt == "all",
        "adapter_rank": block.adapter_rank,
        "use_mem_rope": block.rope is not None,
        "rope_parameters": rope.to_hf(block.rope),
    }


def rules(config: ModelConfig) -> list[Entry]:
    def space_rules(place: Place, hf: str) -> list[Rule]:
        return state_spaces.dual_rules(place.weights, hf)

    return shared_transformer.rules(
        config, shared_transformer.layers(config, "zamba2", "mamba2"), "shared_transformer", space_rules, own_rules
    )


def own_rules(place: Place, hf: str, uses: list[int]) -> list[Rule]:
    """Gate and up, and the adapters, which the checkpoint numbers by the hybrid layer that uses them."""
    rules = linear(f"{place.weights}.gate_up", f"{hf}.feed_forward.gate_up_proj")
    parts = {f"qkv.{i}": f"self_attn.linear_{name}_adapter_list" for i, name in enumerate("qkv")}
    parts["gate_up.0"] = "feed_forward.gate_up_proj_adapter_list"
    for use, hybrid in enumerate(uses):
        for zoo, name in parts.items():
            for part, step in (("down", 0), ("up", 1)):
                rules.append(Rule(f"{place.weights}.own.{use}.{zoo}.{part}.weight", f"{hf}.{name}.{hybrid}.{step}.weight"))
    return rules
