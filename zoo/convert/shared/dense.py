"""What the Llama-shaped families share: a layer is attention and a gated channel mixer, each a residual sub-layer with its norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blocks import gqa
from blocks.errors import ConfigError, one_of, require
from zoo.config.model import ModelConfig
from zoo.convert.shared import rope
from zoo.convert.shared.layers import Place, Spec, assemble, only, places
from zoo.convert.weight_map import Entry, Rule, Tied, linear
from zoo.convert.weight_ops import Concat, Step

ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "relu2": "relu2"}
ACTIVATIONS_OUT = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu2": "relu2"}
LONGEST = 131072  # max_position_embeddings of what is written: a zoo model has no longest text

# a checkpoint's norms of a layer, for the stack's norms (before) and post_norms (behind) of the attention and of the channel mixer
NORM_NAMES = {
    "pre": {"norms": ("input_layernorm", "post_attention_layernorm")},
    "stream": {"norms": ("input_layernorm", "post_attention_layernorm")},
    "post": {"post_norms": ("post_attention_layernorm", "post_feedforward_layernorm")},
    "sandwich": {
        "norms": ("input_layernorm", "pre_feedforward_layernorm"),
        "post_norms": ("post_attention_layernorm", "post_feedforward_layernorm"),
    },
}


ROPE_KEYS = ("rope_parameters", "rope_scaling", "rope_theta", "partial_rotary_factor", "max_position_embeddings")


def read(hf: Mapping[str, Any], defaults: Mapping[str, Any], aliases: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The keys of config.json that a family's class reads, its defaults where they are left out; others change nothing there, and
    nothing here. aliases: other names that the class takes -> those of `defaults`. Raises ConfigError for weights that are not numbers."""
    require(not hf.get("quantization_config"), "quantization_config", hf.get("quantization_config"), "quantized weights are not read")
    given = {(aliases or {}).get(key, key): value for key, value in hf.items()}
    return {**defaults, **{key: value for key, value in given.items() if key in defaults or key in ROPE_KEYS}}


def text(hf: Mapping[str, Any], wrapper: str) -> dict[str, Any]:
    """The config.json of a text model; of a model (of type `wrapper`) that also sees its text_config, with what the whole says of its
    weights. Raises ConfigError."""
    if hf.get("model_type") != wrapper:
        return dict(hf)
    require(isinstance(hf.get("text_config"), Mapping), "text_config", hf.get("text_config"), f"must be a mapping in {wrapper}")
    return hf["text_config"] | {key: hf[key] for key in ("tie_word_embeddings", "quantization_config") if key in hf}


def refuse(hf: Mapping[str, Any], **only: Any) -> None:
    """Raise ConfigError unless these keys have the one value that the zoo computes."""
    for key, value in only.items():
        require(hf[key] == value, key, hf[key], f"the zoo has no such model, only {key} = {value}")


def activation(name: str) -> str:
    """The activation of a hidden_act. Raises ConfigError."""
    one_of("hidden_act", name, tuple(ACTIVATIONS))
    return ACTIVATIONS[name]


def attention(hf: Mapping[str, Any], rope_: Mapping[str, Any] | None, **more: Any) -> dict[str, Any]:
    """The attention block of a config.json: heads, widths and biases; more: other fields of gqa."""
    heads, bias = hf["num_attention_heads"], bool(hf.get("attention_bias", False))
    spec = {"type": "gqa", "n_heads": heads, "n_kv_heads": hf.get("num_key_value_heads") or heads, "rope": rope_}
    spec["head_dim"] = hf.get("head_dim") or hf["hidden_size"] // heads
    biases = {"bias": True, "output_bias": True} if bias else {}
    return spec | biases | {key: value for key, value in more.items() if value is not None}


def gated(hf: Mapping[str, Any], act: str = "hidden_act") -> dict[str, Any]:
    """The gated channel mixer of a config.json."""
    spec = {"type": "swiglu", "hidden": hf["intermediate_size"]}
    name = activation(hf[act])
    return spec | ({"activation": name} if name != "silu" else {}) | ({"bias": True} if hf.get("mlp_bias") else {})


def windows(hf: Mapping[str, Any], layer_types: Sequence[str] | None = None) -> list[int | None]:
    """The window of each layer, by layer_types. Raises ConfigError for types that are not attention."""
    types = hf["layer_types"] if layer_types is None else layer_types
    require(len(types) == hf["num_hidden_layers"], "layer_types", len(types), f"must name {hf['num_hidden_layers']} layers")
    for kind in types:
        one_of("layer_types", kind, ("full_attention", "sliding_attention"))
    return [hf["sliding_window"] if kind == "sliding_attention" else None for kind in types]


def model(hf: Mapping[str, Any], sublayers: Sequence[Sequence[Spec]], **more: Any) -> dict[str, Any]:
    """A model mapping: the widths of a config.json, the sub-layers, and other keys of the model."""
    sizes = {"d_model": hf["hidden_size"], "vocab_size": hf["vocab_size"], "tie_embeddings": bool(hf["tie_word_embeddings"])}
    eps = {"norm_eps": hf["rms_norm_eps"]} if "rms_norm_eps" in hf else {}
    return sizes | eps | more | assemble(sublayers)


def pairs(attentions: Sequence[Spec], channel: Spec) -> list[list[Spec]]:
    """Each attention, and the channel mixer after it, as residual sub-layers."""
    return [[block] for spec in attentions for block in (spec, channel)]


def periodic(hf: Mapping[str, Any], period: int) -> list[str]:
    """layer_types, or where config.json has none every period-th layer without a window."""
    kinds = ["full_attention" if (i + 1) % period == 0 else "sliding_attention" for i in range(hf["num_hidden_layers"])]
    return hf["layer_types"] or kinds


def layers(config: ModelConfig, family: str) -> list[tuple[Any, Any]]:
    """(gqa, swiglu) configs of each layer, resolved. Raises ConfigError where the stack is another one."""
    return [(a, f) for a, f in only(config, family, "gqa", "swiglu")]


def alternating(config: ModelConfig, family: str, mixers: Sequence[str], channels: Sequence[str]) -> list[tuple[Any, Any]]:
    """(mixer, channel mixer) configs of each layer, resolved, of these types. Raises ConfigError where the stack is another one."""
    sublayers = resolved(config)
    for index, branches in enumerate(sublayers):
        here = "|".join(place.type for place in branches)
        if here not in (channels if index % 2 else mixers) or len(sublayers) % 2:
            what = f"{family} has layers of {' or '.join(mixers)} and then {' or '.join(channels)}"
            raise ConfigError("pattern", config.pattern, f"{what}; sub-layer {index} of {len(sublayers)} is {here}")
    flat = [branches[0].config for branches in sublayers]
    return list(zip(flat[::2], flat[1::2], strict=True))


def to_hf(config: ModelConfig, name: str, model_type: str, layers: Sequence[tuple[gqa.Config, Any]]) -> dict[str, Any]:
    """The keys of config.json that all these families have, from the first layer. name: of the class in transformers."""
    first, channel = layers[0]
    return {
        "model_type": model_type,
        "architectures": [f"{name}ForCausalLM"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": channel.hidden,
        "num_hidden_layers": len(layers),
        "num_attention_heads": first.n_heads,
        "num_key_value_heads": first.n_kv_heads,
        "head_dim": first.head_dim,
        "hidden_act": ACTIVATIONS_OUT[channel.activation],
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": first.bias,
        "rope_parameters": rope.to_hf(first.rope),
        "max_position_embeddings": LONGEST,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def windowed(layers: Sequence[tuple[gqa.Config, Any]]) -> dict[str, Any]:
    """layer_types and sliding_window of layers with and without a window."""
    types = ["full_attention" if attention.window is None else "sliding_attention" for attention, _ in layers]
    return {"layer_types": types, "sliding_window": next((a.window for a, _ in layers if a.window is not None), None)}


def ropes_by_type(layers: Sequence[tuple[gqa.Config, Any]]) -> dict[str, Any]:
    """rope_parameters where layers with a window have their own; those of a type that no layer has are the other's."""
    local = next((a.rope for a, _ in layers if a.window is not None), None)
    full = next((a.rope for a, _ in layers if a.window is None), None)
    return {"sliding_attention": rope.to_hf(local or full), "full_attention": rope.to_hf(full or local)}


def attention_rules(place: Place, hf: str, *steps: Step) -> list[Rule]:
    """q_proj, k_proj, v_proj, o_proj, q_norm, k_norm; steps: after the three projections are joined."""
    config: Any = place.config
    e = config.head_dim
    sizes = (config.n_heads * e, config.n_kv_heads * e, config.n_kv_heads * e)
    return [
        *linear(f"{place.weights}.qkv", [f"{hf}.{name}_proj" for name in "qkv"], Concat(sizes), *steps),
        *linear(f"{place.weights}.out", f"{hf}.o_proj"),
        *(rule for name in "qk" for rule in linear(f"{place.weights}.{name}_norm", f"{hf}.{name}_norm")),
    ]


def gated_rules(place: Place, hf: str) -> list[Rule]:
    """gate_proj, up_proj, down_proj."""
    return [rule for name in ("gate", "up", "down") for rule in linear(f"{place.weights}.{name}", f"{hf}.{name}_proj")]


def norm_rules(config: ModelConfig, layer: int, hf: str) -> list[Rule]:
    """The norms of a layer whose attention is sub-layer 2 layer and whose channel mixer is the next."""
    return [
        rule
        for zoo, names in NORM_NAMES[config.norm_place].items()
        for i, name in enumerate(names)
        for rule in linear(f"stack.{zoo}.{2 * layer + i}", f"{hf}.{name}")
    ]


def ends(config: ModelConfig, trunk: str = "model", last: str = "norm") -> list[Entry]:
    """Embedding, last norm (last: its name in the checkpoint) and head."""
    return [*tables(config, f"{trunk}.embed_tokens.weight"), *linear("norm", f"{trunk}.{last}")]


def tables(config: ModelConfig, table: str, head: str = "lm_head.weight") -> list[Entry]:
    """The embedding and the head, by the names `table` and `head` in the checkpoint."""
    return [Rule("embedding.weight", table), Tied(head, table) if config.tie_embeddings else Rule("head.weight", head)]


def rules(config: ModelConfig, *steps: Step) -> list[Entry]:
    """The weight map of a Llama-shaped model; steps: after q, k and v are joined."""
    entries = ends(config)
    blocks = resolved(config)
    for layer in range(len(blocks) // 2):
        (attention_,), (channel,) = blocks[2 * layer], blocks[2 * layer + 1]
        hf = f"model.layers.{layer}"
        entries += [*attention_rules(attention_, f"{hf}.self_attn", *steps), *gated_rules(channel, f"{hf}.mlp")]
        entries += norm_rules(config, layer, hf)
    return entries


def resolved(config: ModelConfig) -> list[tuple[Place, ...]]:
    """The blocks of each sub-layer, sizes written out."""
    return [tuple(p._replace(config=p.config.resolved(config.d_model)) for p in branches) for branches in places(config)]
