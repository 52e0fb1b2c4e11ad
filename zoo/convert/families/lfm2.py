"""LFM2 (arXiv:2511.23404): gated short convolutions, attention in a few layers, SwiGLU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blocks import gated_conv, gqa, swiglu
from blocks.errors import one_of, require
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, experts, rope
from zoo.convert.shared.layers import Place, Spec
from zoo.convert.weight_map import Entry, Rule, linear
from zoo.convert.weight_ops import Concat, Squeeze

MODEL_TYPES = ("lfm2",)
MODELS = ("lfm2_1_2b",)
MIXERS: dict[str, Any] = {  # keys of config.json with their defaults, of this family and of that with experts
    "vocab_size": 65536,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": None,
    "norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "tie_embedding": None,
    "conv_bias": False,
    "conv_L_cache": 3,
    "layer_types": None,
}
DEFAULTS: dict[str, Any] = MIXERS | {
    "hidden_size": 2560,
    "intermediate_size": 12288,
    "block_ff_dim": None,
    "block_multiple_of": 256,
    "block_ffn_dim_multiplier": 1.0,
    "block_auto_adjust_ff_dim": True,
    "full_attn_idxs": None,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    n, full = hf["num_hidden_layers"], hf["full_attn_idxs"]
    types = hf["layer_types"] or ["full_attention" if full is None or i in full else "conv" for i in range(n)]
    return model(hf, types, [{"type": "swiglu", "hidden": _hidden(hf)}] * n)


def _hidden(hf: Mapping[str, Any]) -> int:
    """The hidden width that the class makes of a width before gating."""
    hidden = hf["intermediate_size"] if hf["block_ff_dim"] is None else hf["block_ff_dim"]
    if not hf["block_auto_adjust_ff_dim"]:
        return int(hidden)
    hidden, of = int(2 * hidden / 3), hf["block_multiple_of"]
    if hf["block_ffn_dim_multiplier"] is None:
        return hidden
    return of * -(-int(hf["block_ffn_dim_multiplier"] * hidden) // of)


def model(hf: Mapping[str, Any], types: Sequence[str], channels: Sequence[Spec]) -> dict[str, Any]:
    """A model mapping: the mixer of each layer by its type, then its channel mixer. Raises ConfigError."""
    require(len(types) == hf["num_hidden_layers"], "layer_types", len(types), f"must name {hf['num_hidden_layers']} layers")
    attention = dense.attention(hf, rope.to_zoo(hf, 1e6), qk_norm="head", norm_eps=hf["norm_eps"])
    conv = {"type": "gated_conv", "conv": hf["conv_L_cache"]} | ({"bias": True} if hf["conv_bias"] else {})
    sublayers: list[list[Spec]] = []
    for kind, channel in zip(types, channels, strict=True):
        one_of("layer_types", kind, ("conv", "full_attention"))
        sublayers += [[conv if kind == "conv" else attention], [channel]]
    tied = hf["tie_word_embeddings"] if hf["tie_embedding"] is None else hf["tie_embedding"]
    return dense.model({**hf, "tie_word_embeddings": tied}, sublayers, norm_eps=hf["norm_eps"])


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = experts.only_dense(config, "lfm2", "gqa", "gated_conv")
    return common_to_hf(config, layers, "Lfm2", "lfm2", layers[0][1]) | {"block_auto_adjust_ff_dim": False}


def common_to_hf(config: ModelConfig, layers: Sequence[tuple[Any, Any]], name: str, model_type: str, channel: Any) -> dict[str, Any]:
    """The keys of config.json about mixers and widths; of a kind of mixers that no layer has any will do."""
    attention = next((m for m, _ in layers if isinstance(m, gqa.Config)), gqa.Config(n_heads=1).resolved(config.d_model))
    conv = next((m for m, _ in layers if isinstance(m, gated_conv.Config)), gated_conv.Config())
    common = dense.to_hf(config, name, model_type, [(attention, channel)] * len(layers))
    common["norm_eps"] = common.pop("rms_norm_eps")
    del common["hidden_act"], common["attention_bias"]
    types = ["full_attention" if isinstance(m, gqa.Config) else "conv" for m, _ in layers]
    return common | {"layer_types": types, "conv_L_cache": conv.conv, "conv_bias": conv.bias}


def rules(config: ModelConfig) -> list[Entry]:
    entries = dense.ends(config, last="embedding_norm")
    for layer, mixer, channel in experts.pairs(config):
        hf = f"model.layers.{layer}"
        for i, name in enumerate(("operator_norm", "ffn_norm")):
            entries += linear(f"stack.norms.{2 * layer + i}", f"{hf}.{name}")
        entries += _conv_rules(mixer, f"{hf}.conv") if mixer.type == "gated_conv" else _attention_rules(mixer, f"{hf}.self_attn")
        entries += channel_rules(channel, f"{hf}.feed_forward")
    return entries


def _conv_rules(place: Place, hf: str) -> list[Rule]:
    w = place.weights
    conv = [Rule(f"{w}.conv.weight", f"{hf}.conv.weight", Squeeze()), Rule(f"{w}.conv.bias", f"{hf}.conv.bias")]
    return [*linear(f"{w}.in_proj", f"{hf}.in_proj"), *conv, *linear(f"{w}.out_proj", f"{hf}.out_proj")]


def _attention_rules(place: Place, hf: str) -> list[Rule]:
    config: Any = place.config
    e, w = config.head_dim, place.weights
    sizes = (config.n_heads * e, config.n_kv_heads * e, config.n_kv_heads * e)
    return [
        *linear(f"{w}.qkv", [f"{hf}.{name}_proj" for name in "qkv"], Concat(sizes)),
        *linear(f"{w}.out", f"{hf}.out_proj"),
        *(rule for name in "qk" for rule in linear(f"{w}.{name}_norm", f"{hf}.{name}_layernorm")),
    ]


def channel_rules(place: Place, hf: str) -> list[Rule]:
    """w1 (gate), w3 (up) and w2 (down) of a dense layer or of each expert; the router and its selection bias."""
    w = place.weights
    if isinstance(place.config, swiglu.Config):
        return [rule for zoo, name in (("gate", "w1"), ("up", "w3"), ("down", "w2")) for rule in linear(f"{w}.{zoo}", f"{hf}.{name}")]
    router = [*linear(f"{w}.router", f"{hf}.gate"), Rule(f"{w}.selection_bias", f"{hf}.expert_bias")]
    return [*experts.expert_rules(place, f"{hf}.experts", ("w1", "w3", "w2")), *router]
