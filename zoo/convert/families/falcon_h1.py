"""Falcon-H1 (arXiv:2507.22448): Mamba-2 beside attention in every layer, on one norm, then SwiGLU; factors everywhere (muP).

The factor of the keys is part of the attention's scale: rotary positions keep factors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from blocks.errors import require
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, hybrid, rope, state_spaces
from zoo.convert.shared.layers import only, places
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("falcon_h1",)
MODELS = ("falcon_h1_500m",)
UNREAD = ("mamba_expand", "mamba_d_head")
DEFAULTS: dict[str, Any] = {
    **hybrid.MAMBA,
    "vocab_size": 128000,
    "tie_word_embeddings": False,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "mamba_d_ssm": 1024,
    "mamba_norm_before_gate": True,
    "mamba_rms_norm": False,
    "projectors_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "embedding_multiplier": 1.0,
    "lm_head_multiplier": 1.0,
    "mlp_multipliers": None,
    "key_multiplier": 1.0,
    "attention_out_multiplier": 1.0,
    "attention_in_multiplier": 1.0,
    "ssm_multipliers": None,
    "ssm_in_multiplier": 1.0,
    "ssm_out_multiplier": 1.0,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    dense.refuse(hf | {"hidden_act": dense.activation(hf["hidden_act"])}, hidden_act="silu")
    for key, count in (("mlp_multipliers", 2), ("ssm_multipliers", 5)):
        require(hf[key] is None or len(hf[key]) == count, key, hf[key], f"must be {count} numbers")
    gate, down = hf["mlp_multipliers"] or (1.0, 1.0)
    channel = scaled(dense.gated(hf) | {"gate_scale": float(gate)}, 1.0, down)
    factors = {"embedding_scale": float(hf["embedding_multiplier"]), "logit_scale": float(hf["lm_head_multiplier"])}
    return dense.model(hf, [[space(hf), attention(hf)], [channel]] * hf["num_hidden_layers"], **factors)


def scaled(spec: dict[str, Any], before: float, behind: float) -> dict[str, Any]:
    """A block with factors of what it reads and of what it returns."""
    return spec | {"input_scale": float(before), "output_scale": float(behind)}


def space(hf: Mapping[str, Any]) -> dict[str, Any]:
    """The Mamba-2 of a config.json. Raises ConfigError."""
    biases = hf["projectors_bias"]
    require(biases == hf["mamba_proj_bias"], "projectors_bias", biases, "the zoo's projections in and out have both a bias or none")
    norm = "none" if not hf["mamba_rms_norm"] else "before_gate" if hf["mamba_norm_before_gate"] else "after_gate"
    scales = [float(factor) for factor in hf["ssm_multipliers"] or [1.0] * 5]
    spec = hybrid.dual(hf, hf["mamba_d_ssm"], norm=norm, scales=scales)
    return scaled(spec, hf["ssm_in_multiplier"], hf["ssm_out_multiplier"])


def attention(hf: Mapping[str, Any]) -> dict[str, Any]:
    """The attention of a config.json."""
    spec = dense.attention(hf, rope.to_zoo(hf, 10000.0))
    spec["scale"] = hf["key_multiplier"] / math.sqrt(spec["head_dim"])
    return scaled(spec, hf["attention_in_multiplier"], hf["attention_out_multiplier"])


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = only(config, "falcon_h1", "mamba2|gqa", "swiglu")
    mixer, heads, channel = layers[0]
    (space_, attention_), (channel_,) = [[config.named[place.name] for place in branches] for branches in places(config)[:2]]
    return (
        dense.to_hf(config, "FalconH1", "falcon_h1", [(heads, channel)] * len(layers))
        | hybrid.dual_to_hf(mixer, config.d_model)
        | {
            "mlp_bias": channel.bias,
            "mamba_d_ssm": mixer.inner(config.d_model),
            "mamba_rms_norm": mixer.norm != "none",
            "mamba_norm_before_gate": mixer.norm == "before_gate",
            "projectors_bias": mixer.bias,
            "embedding_multiplier": config.embedding_scale,
            "lm_head_multiplier": config.logit_scale,
            "mlp_multipliers": [channel.gate_scale, channel_.output_scale],
            "key_multiplier": heads.scale * math.sqrt(heads.head_dim),
            "attention_in_multiplier": attention_.input_scale,
            "attention_out_multiplier": attention_.output_scale,
            "ssm_multipliers": list(mixer.scales),
            "ssm_in_multiplier": space_.input_scale,
            "ssm_out_multiplier": space_.output_scale,
        }
    )


def rules(config: ModelConfig) -> list[Entry]:
    entries, blocks = hybrid.surroundings(config), dense.resolved(config)
    for layer in range(len(blocks) // 2):
        hf = f"model.layers.{layer}"
        (space_, attention_), (channel,) = blocks[2 * layer], blocks[2 * layer + 1]
        entries += [*state_spaces.dual_rules(space_.weights, f"{hf}.mamba"), *dense.attention_rules(attention_, f"{hf}.self_attn")]
        entries += dense.gated_rules(channel, f"{hf}.feed_forward")
    return entries
