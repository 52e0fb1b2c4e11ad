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
    """A few matrices of each expert in turn are one of ours: joined by rows, along a new first dimension."""

    parts: int = 1

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        return [torch.stack([torch.cat(tensors[i : i + self.parts]) for i in range(0, len(tensors), self.parts)])]

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]:
        return [matrix for expert in tensors[0] for matrix in expert.chunk(self.parts)]


def silu(hf: Mapping[str, Any]) -> None:
    """Raise ConfigError unless the experts are SwiGLUs."""
    one_of("hidden_act", hf["hidden_act"], ("silu", "swish"))


def only(config: ModelConfig, family: str, *mixers: str) -> list[tuple[Any, Any]]:
    """The configs of each layer, resolved: one of `mixers`, then a swiglu or a moe. Raises ConfigError where the stack is another one."""
    found, flat = dense.resolved(config), []
    for index, branches in enumerate(found):
        wanted = mixers if index % 2 == 0 else ("swiglu", "moe")
        here = "|".join(place.type for place in branches)
        if here not in wanted or len(found) % 2:
            what = f"{family} has layers of {' or '.join(mixers)} and then swiglu or moe"
            raise ConfigError("pattern", config.pattern, f"{what}; sub-layer {index} of {len(found)} is {here}")
        flat.append(branches[0].config)
    return list(zip(flat[::2], flat[1::2], strict=True))


def only_dense(config: ModelConfig, family: str, *mixers: str) -> list[tuple[Any, Any]]:
    """As `only`, with a swiglu in every layer."""
    found = only(config, family, *mixers)
    require(not any(is_moe(channel) for _, channel in found), "pattern", config.pattern, f"{family} has a swiglu in every layer, no moe")
    return found


def is_moe(channel: Any) -> bool:
    """Whether a channel mixer's config is of a mixture."""
    return isinstance(channel, moe.Config)


def first(found: Sequence[tuple[Any, Any]], kind: type) -> Any:
    """The first channel mixer of a kind, or None: that the others are like it is seen when the config is read back."""
    return next((channel for _, channel in found if isinstance(channel, kind)), None)


def mixture(config: ModelConfig, found: Sequence[tuple[Any, Any]], family: str) -> moe.Config:
    """The first mixture. Raises ConfigError if there is none."""
    channel = first(found, moe.Config)
    if not isinstance(channel, moe.Config):
        raise ConfigError("pattern", config.pattern, f"{family} has experts in some layer")
    return channel


def mixed(attentions: Sequence[Spec], dense_: Spec, sparse_: Spec, sparse: Sequence[bool]) -> list[list[Spec]]:
    """Each attention and the channel mixer after it as residual sub-layers; sparse: of each layer, whether that is the mixture."""
    return [[block] for spec, is_sparse in zip(attentions, sparse, strict=True) for block in (spec, sparse_ if is_sparse else dense_)]


def expert_rules(place: Place, theirs: str, names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")) -> list[Rule]:
    """Experts one by one: {theirs}.{e}.{name}.weight, names of gate, up and down."""
    config: Any = place.config
    n = range(config.n_experts)
    ups = [f"{theirs}.{e}.{name}.weight" for e in n for name in names[:2]]
    return [
        Rule(f"{place.weights}.up", ups, PerExpert(2)),
        Rule(f"{place.weights}.down", [f"{theirs}.{e}.{names[2]}.weight" for e in n], PerExpert()),
    ]


def fused_rules(place: Place, theirs: str) -> list[Entry]:
    """Experts one by one, or all in one tensor as (n, out, in): {theirs}.gate_up_proj and down_proj."""
    up, down = expert_rules(place, theirs)
    w = place.weights
    return [Either(up, Rule(f"{w}.up", f"{theirs}.gate_up_proj")), Either(down, Rule(f"{w}.down", f"{theirs}.down_proj"))]


def stacked_rules(place: Place, theirs: str, *steps: Step) -> list[Rule]:
    """Experts in one tensor as (n, in, out): {theirs}.gate_up_proj and down_proj, their biases too; steps: of gate and up."""
    w, turned = place.weights, Transpose((1, 2))
    return [
        Rule(f"{w}.up", f"{theirs}.gate_up_proj", turned, *steps),
        Rule(f"{w}.up_bias", f"{theirs}.gate_up_proj_bias", *steps),
        Rule(f"{w}.down", f"{theirs}.down_proj", turned),
        Rule(f"{w}.down_bias", f"{theirs}.down_proj_bias"),
    ]


def shared_rules(place: Place, theirs: str) -> list[Rule]:
    """The shared network: {theirs}.gate_proj, up_proj and down_proj."""
    config: Any = place.config
    halves = Concat((config.shared_hidden, config.shared_hidden))
    ups = [f"{theirs}.gate_proj", f"{theirs}.up_proj"]
    return [*linear(f"{place.weights}.shared_up", ups, halves), *linear(f"{place.weights}.shared_down", f"{theirs}.down_proj")]


def router_rules(place: Place, theirs: str) -> list[Rule]:
    """{theirs}.weight, bias and e_score_correction_bias."""
    bias = Rule(f"{place.weights}.selection_bias", f"{theirs}.e_score_correction_bias")
    return [*linear(f"{place.weights}.router", theirs), bias]


def deepseek_rules(place: Place, theirs: str) -> list[Rule]:
    """Experts, shared network and router as DeepSeek and those after it name them, in {theirs} = ...mlp; a dense layer's as well."""
    if place.type == "swiglu":
        return dense.gated_rules(place, theirs)
    found = [*expert_rules(place, f"{theirs}.experts"), *router_rules(place, f"{theirs}.gate")]
    return [*found, *shared_rules(place, f"{theirs}.shared_experts")]


def pairs(config: ModelConfig) -> list[tuple[int, Place, Place]]:
    """(layer, attention, channel mixer) of each layer, sizes written out."""
    flat = [branches[0] for branches in dense.resolved(config)]
    return [(i, a, b) for i, (a, b) in enumerate(zip(flat[::2], flat[1::2], strict=True))]


def surroundings(config: ModelConfig) -> list[Entry]:
    """Embedding, head and every norm of the residual stream."""
    found = dense.ends(config)
    for layer in range(len(config.layers) // 2):
        found += dense.norm_rules(config, layer, f"model.layers.{layer}")
    return found
