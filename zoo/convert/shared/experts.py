"""What the families with experts share: layers whose channel mixer is dense or a mixture, and where checkpoints keep its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from blocks import moe
from blocks.errors import ConfigError, one_of, require
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense
from zoo.convert.shared.layers import Place, Spec
from zoo.convert.weight_map import Either, Entry, Rule, linear
from zoo.convert.weight_ops import Concat, Step, Transpose


@dataclass(frozen=True)
class PerExpert:
    """A few matrices of each expert in turn become one tensor: joined by rows, experts along a new first dimension."""

    parts: int = 1

    def to_zoo(self, tensors: list[Tensor]) -> list[Tensor]:
        return [torch.stack([torch.cat(tensors[i : i + self.parts]) for i in range(0, len(tensors), self.parts)])]

    def to_hf(self, tensors: list[Tensor]) -> list[Tensor]:
        return [matrix for expert in tensors[0] for matrix in expert.chunk(self.parts)]


def silu(hf: Mapping[str, Any]) -> None:
    """Raise ConfigError unless the experts are SwiGLUs."""
    one_of("hidden_act", hf["hidden_act"], ("silu", "swish"))


def only(config: ModelConfig, family: str, *mixers: str) -> list[tuple[Any, Any]]:
    """The configs of each layer, resolved: one of `mixers`, then a swiglu or a moe. Raises ConfigError where the stack is another one."""
    return dense.alternating(config, family, mixers, ("swiglu", "moe"))


def only_dense(config: ModelConfig, family: str, *mixers: str) -> list[tuple[Any, Any]]:
    """As `only`, with a swiglu in every layer."""
    layers = only(config, family, *mixers)
    require(not any(is_moe(channel) for _, channel in layers), "pattern", config.pattern, f"{family} has a swiglu in every layer, no moe")
    return layers


def is_moe(channel: Any) -> bool:
    """Whether a channel mixer's config is of a mixture."""
    return isinstance(channel, moe.Config)


def first(layers: Sequence[tuple[Any, Any]], kind: type) -> Any:
    """The first channel mixer of a kind, or None: that the others are like it is seen when the config is read back."""
    return next((channel for _, channel in layers if isinstance(channel, kind)), None)


def mixture(config: ModelConfig, layers: Sequence[tuple[Any, Any]], family: str) -> moe.Config:
    """The first mixture. Raises ConfigError if there is none."""
    channel = first(layers, moe.Config)
    if not isinstance(channel, moe.Config):
        raise ConfigError("pattern", config.pattern, f"{family} has experts in some layer")
    return channel


def mixed(attentions: Sequence[Spec], dense_: Spec, sparse_: Spec, sparse: Sequence[bool]) -> list[list[Spec]]:
    """Each attention and the channel mixer after it as residual sub-layers; sparse: of each layer, whether that is the mixture."""
    return [[block] for spec, is_sparse in zip(attentions, sparse, strict=True) for block in (spec, sparse_ if is_sparse else dense_)]


def expert_rules(place: Place, hf: str, names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")) -> list[Rule]:
    """Experts one by one: {hf}.{e}.{name}.weight, names of gate, up and down."""
    config: Any = place.config
    n = range(config.n_experts)
    ups = [f"{hf}.{e}.{name}.weight" for e in n for name in names[:2]]
    return [
        Rule(f"{place.weights}.up", ups, PerExpert(2)),
        Rule(f"{place.weights}.down", [f"{hf}.{e}.{names[2]}.weight" for e in n], PerExpert()),
    ]


def fused_rules(place: Place, hf: str) -> list[Entry]:
    """Experts one by one, or all in one tensor as (n, out, in): {hf}.gate_up_proj and down_proj."""
    up, down = expert_rules(place, hf)
    w = place.weights
    return [Either(up, Rule(f"{w}.up", f"{hf}.gate_up_proj")), Either(down, Rule(f"{w}.down", f"{hf}.down_proj"))]


def stacked_rules(place: Place, hf: str, *steps: Step) -> list[Rule]:
    """Experts in one tensor as (n, in, out): {hf}.gate_up_proj and down_proj, with their biases; steps: of gate and up."""
    w, turned = place.weights, Transpose((1, 2))
    return [
        Rule(f"{w}.up", f"{hf}.gate_up_proj", turned, *steps),
        Rule(f"{w}.up_bias", f"{hf}.gate_up_proj_bias", *steps),
        Rule(f"{w}.down", f"{hf}.down_proj", turned),
        Rule(f"{w}.down_bias", f"{hf}.down_proj_bias"),
    ]


def shared_rules(place: Place, hf: str) -> list[Rule]:
    """The shared network: {hf}.gate_proj, up_proj and down_proj."""
    config: Any = place.config
    halves = Concat((config.shared_hidden, config.shared_hidden))
    ups = [f"{hf}.gate_proj", f"{hf}.up_proj"]
    return [*linear(f"{place.weights}.shared_up", ups, halves), *linear(f"{place.weights}.shared_down", f"{hf}.down_proj")]


def router_rules(place: Place, hf: str) -> list[Rule]:
    """{hf}.weight, bias and e_score_correction_bias."""
    bias = Rule(f"{place.weights}.selection_bias", f"{hf}.e_score_correction_bias")
    return [*linear(f"{place.weights}.router", hf), bias]


def deepseek_rules(place: Place, hf: str) -> list[Rule]:
    """Experts, shared network and router as DeepSeek and those after it name them, in {hf} = ...mlp; a dense layer's as well."""
    if place.type == "swiglu":
        return dense.gated_rules(place, hf)
    rules = [*expert_rules(place, f"{hf}.experts"), *router_rules(place, f"{hf}.gate")]
    return [*rules, *shared_rules(place, f"{hf}.shared_experts")]


def pairs(config: ModelConfig) -> list[tuple[int, Place, Place]]:
    """(layer, attention, channel mixer) of each layer, sizes written out."""
    flat = [branches[0] for branches in dense.resolved(config)]
    return [(i, a, b) for i, (a, b) in enumerate(zip(flat[::2], flat[1::2], strict=True))]


def surroundings(config: ModelConfig) -> list[Entry]:
    """Embedding, head and every norm of the residual stream."""
    entries = dense.ends(config)
    for layer in range(len(config.layers) // 2):
        entries += dense.norm_rules(config, layer, f"model.layers.{layer}")
    return entries
