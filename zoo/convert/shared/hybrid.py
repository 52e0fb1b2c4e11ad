"""What hybrids of state spaces and attention share: a layer is a mixer of one kind or the other, then a channel mixer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from blocks import gqa, swiglu
from blocks.errors import ConfigError, one_of, require
from zoo.config.model import ModelConfig
from zoo.convert.families.mamba2 import number
from zoo.convert.shared import dense, experts, state_spaces
from zoo.convert.shared.layers import Place, Spec
from zoo.convert.weight_map import Entry, Rule, linear

MAMBA: dict[str, Any] = {  # keys of config.json for Mamba-2 beside attention, with their defaults
    "mamba_n_heads": 128,
    "mamba_d_head": "auto",
    "mamba_n_groups": 1,
    "mamba_d_state": 256,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_conv_bias": True,
    "mamba_proj_bias": False,
    "time_step_limit": (0.0, math.inf),
}
KINDS = {"mamba": "linear_attention", "attention": "full_attention"}  # words for layers before transformers 5


def kinds(names: Sequence[str], *more: str) -> list[str]:
    """The kind of each layer in the words of transformers 5; more: kinds beside a state space and attention. Raises ConfigError."""
    types = [KINDS.get(name, name) for name in names]
    for kind in types:
        one_of("layer_types", kind, (*KINDS.values(), *more))
    return types


def dual(hf: Mapping[str, Any], channels: int | None = None, **more: Any) -> dict[str, Any]:
    """The Mamba-2 of a config.json; channels: none = mamba_expand * hidden_size. Raises ConfigError."""
    channels = int(hf["mamba_expand"] * hf["hidden_size"]) if channels is None else channels
    heads, width = hf["mamba_n_heads"], hf["mamba_d_head"]
    width = channels // heads if width == "auto" else width
    require(heads * width == channels, "mamba_n_heads", heads, f"times mamba_d_head = {width} must be {channels}")
    spec = {
        "type": "mamba2",
        "d_state": hf["mamba_d_state"],
        "n_heads": heads,
        "head_dim": width,
        "n_groups": hf["mamba_n_groups"],
        "conv": hf["mamba_d_conv"],
        "conv_bias": bool(hf["mamba_conv_bias"]),
        "bias": bool(hf["mamba_proj_bias"]),
        "dt_limit": [number(value) for value in hf["time_step_limit"]],
        "norm_eps": hf["rms_norm_eps"],
    }
    return spec | more


def dual_to_hf(mixer: Any, d_model: int) -> dict[str, Any]:
    """The keys of MAMBA."""
    return {
        "mamba_n_heads": mixer.n_heads,
        "mamba_d_head": mixer.head_dim,
        "mamba_n_groups": mixer.n_groups,
        "mamba_d_state": mixer.d_state,
        "mamba_d_conv": mixer.conv,
        "mamba_expand": mixer.inner(d_model) // d_model,
        "mamba_conv_bias": mixer.conv_bias,
        "mamba_proj_bias": mixer.bias,
        "time_step_limit": list(mixer.dt_limit),
    }


def sublayers(mixers: Sequence[Spec], channels: Sequence[Spec]) -> list[list[Spec]]:
    """Each layer's mixer and channel mixer as residual sub-layers."""
    return [[block] for pair in zip(mixers, channels, strict=True) for block in pair]


class Layers:
    """The blocks of a hybrid's layers, sizes written out: `pairs` of a mixer and a channel mixer. Raises ConfigError where the stack is
    another one, or has no state space. space: the type of its state spaces; channels: types of its channel mixers."""

    def __init__(self, config: ModelConfig, family: str, space: str, channels: Sequence[str]) -> None:
        self.pairs = dense.alternating(config, family, (space, "gqa"), channels)
        self.attends = [isinstance(mixer, gqa.Config) for mixer, _ in self.pairs]
        if all(self.attends):
            raise ConfigError("pattern", config.pattern, f"{family} has a {space} in some layer")
        self.space: Any = self.pairs[self.attends.index(False)][0]
        attentions = [mixer for mixer, _ in self.pairs if isinstance(mixer, gqa.Config)]
        self.attention = attentions[0] if attentions else gqa.Config(n_heads=1).resolved(config.d_model)

    @property
    def sparse(self) -> list[bool]:
        """Which layers have experts."""
        return [experts.is_moe(channel) for _, channel in self.pairs]

    def to_hf(self, config: ModelConfig, name: str, model_type: str, channel: swiglu.Config) -> dict[str, Any]:
        """The keys of config.json that every family of Llama's surroundings has. channel: the dense channel mixer."""
        return dense.to_hf(config, name, model_type, [(self.attention, channel)] * len(self.pairs))


def surroundings(
    config: ModelConfig, names: tuple[str, str] = ("input_layernorm", "pre_ff_layernorm"), last: str = "final_layernorm"
) -> list[Entry]:
    """Embedding, head and every norm of the residual stream. names: of a layer's two norms; last: of the norm before the head."""
    entries = dense.ends(config, last=last)
    for index in range(len(config.layers)):
        entries += linear(f"stack.norms.{index}", f"model.layers.{index // 2}.{names[index % 2]}")
    return entries


def mixer_rules(place: Place, hf: str) -> list[Rule]:
    """{hf}.self_attn or {hf}.mamba."""
    if place.type == "gqa":
        return dense.attention_rules(place, f"{hf}.self_attn")
    rules = state_spaces.selective_rules if place.type == "mamba1" else state_spaces.dual_rules
    return rules(place.weights, f"{hf}.mamba")
