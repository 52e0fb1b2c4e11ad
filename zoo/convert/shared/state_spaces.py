"""What the families of stacked state spaces share: one mixer a layer, and around it the names of Mamba's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.errors import one_of
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense
from zoo.convert.shared.layers import Place, Spec, assemble
from zoo.convert.weight_map import Entry, Rule, Trunk, linear
from zoo.convert.weight_ops import Heads, Permute, Squeeze, ungrouped

SURROUNDINGS: dict[str, Any] = {  # keys of config.json with their defaults
    "layer_norm_epsilon": 1e-5,
    "expand": 2,
    "conv_kernel": 4,
    "use_bias": False,
    "use_conv_bias": True,
    "hidden_act": "silu",
}


def model(hf: Mapping[str, Any], mixer: Spec) -> dict[str, Any]:
    """A model mapping of a config.json: the same mixer in every layer. Raises ConfigError."""
    one_of("hidden_act", hf["hidden_act"], ("silu", "swish"))
    return {
        "d_model": hf["hidden_size"],
        "vocab_size": hf["vocab_size"],
        "norm_eps": hf["layer_norm_epsilon"],
        "tie_embeddings": bool(hf["tie_word_embeddings"]),
        **assemble([[mixer]] * hf["num_hidden_layers"]),
    }


def mixer(hf: Mapping[str, Any], type_: str, **more: Any) -> dict[str, Any]:
    """A mixer of a config.json: the keys that both generations have; more: the others."""
    spec = {"type": type_, "d_state": hf["state_size"], "expand": float(hf["expand"]), "conv": hf["conv_kernel"]}
    biases = {"conv_bias": bool(hf["use_conv_bias"]), "bias": bool(hf["use_bias"])}
    return spec | biases | more


def to_hf(config: ModelConfig, name: str, model_type: str, layers: int, mixer: Any) -> dict[str, Any]:
    """The keys of config.json that both generations have. name: of the class in transformers; mixer: its config in the first layer."""
    return {
        "model_type": model_type,
        "architectures": [f"{name}ForCausalLM"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "state_size": mixer.d_state,
        "num_hidden_layers": layers,
        "layer_norm_epsilon": config.norm_eps,
        "expand": mixer.inner(config.d_model) // config.d_model,
        "conv_kernel": mixer.conv,
        "use_bias": mixer.bias,
        "use_conv_bias": mixer.conv_bias,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def ends(config: ModelConfig) -> list[Entry]:
    """Embedding, head, and every norm of the residual stream."""
    entries = [Trunk("backbone."), *dense.tables(config, "backbone.embeddings.weight"), *linear("norm", "backbone.norm_f")]
    for layer in range(len(config.layers)):
        entries += linear(f"stack.norms.{layer}", f"backbone.layers.{layer}.norm")
    return entries


def mixers(config: ModelConfig) -> list[tuple[Place, str]]:
    """Each mixer and the prefix of its tensors' names in the checkpoint."""
    return [(place, f"backbone.layers.{layer}.mixer") for layer, (place,) in enumerate(dense.resolved(config))]


def conv_rules(zoo: str, hf: str) -> list[Rule]:
    """A short convolution, which the checkpoint keeps as nn.Conv1d."""
    return [Rule(f"{zoo}.weight", f"{hf}.weight", Squeeze()), Rule(f"{zoo}.bias", f"{hf}.bias")]


def selective_rules(zoo: str, hf: str) -> list[Rule]:
    """Mamba's mixer; norms of dt', B and C where it has them (Jamba's names)."""
    rules = conv_rules(f"{zoo}.conv", f"{hf}.conv1d")
    for name in ("in_proj", "x_proj", "dt_proj", "out_proj"):
        rules += linear(f"{zoo}.{name}", f"{hf}.{name}")
    for index, name in enumerate(("dt", "b", "c")):
        rules.append(Rule(f"{zoo}.norms.{index}.weight", f"{hf}.{name}_layernorm.weight"))
    return [*rules, *(Rule(f"{zoo}.{name}", f"{hf}.{name}") for name in ("A_log", "D"))]


def headed_rules(zoo: str, hf: str, heads: int, channels: int) -> list[Rule]:
    """Mamba's mixer with heads (Zamba's names): x and z of a channel stand side by side, heads have a dimension of their own."""
    rules = conv_rules(f"{zoo}.conv", f"{hf}.conv1d")
    rules += linear(f"{zoo}.in_proj", f"{hf}.in_proj", Permute(ungrouped(channels, (1, 1))))
    rules += linear(f"{zoo}.out_proj", f"{hf}.out_proj")
    apart = {"x_proj.weight": "x_proj_weight", "dt_proj.weight": "dt_proj_weight", "dt_proj.bias": "dt_proj_bias"}
    names = apart | {name: name for name in ("A_log", "D")}
    return [*rules, *(Rule(f"{zoo}.{own}", f"{hf}.{name}", Heads(heads)) for own, name in names.items())]


def dual_rules(zoo: str, hf: str) -> list[Rule]:
    """Mamba-2's mixer."""
    rules = conv_rules(f"{zoo}.conv", f"{hf}.conv1d")
    for name in ("in_proj", "norm", "out_proj"):
        rules += linear(f"{zoo}.{name}", f"{hf}.{name}")
    return [*rules, *(Rule(f"{zoo}.{name}", f"{hf}.{name}") for name in ("dt_bias", "A_log", "D"))]
