"""OLMo Hybrid: layers of Gated DeltaNet with norms before their sub-layers among layers of attention with norms behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.model import ModelConfig
from zoo.convert.shared import delta, dense, experts, rope
from zoo.convert.weight_map import Also, Entry, Rule

MODEL_TYPES = ("olmo_hybrid",)
MODELS = ("olmo_hybrid_7b",)
DEFAULTS: dict[str, Any] = {
    "vocab_size": 100352,
    "hidden_size": 3840,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 30,
    "num_key_value_heads": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "layer_types": None,
    "linear_num_key_heads": None,
    "linear_num_value_heads": None,
    "linear_key_head_dim": None,
    "linear_value_head_dim": None,
    "linear_conv_kernel_dim": 4,
    "linear_allow_neg_eigval": True,
}
NORM_EPS = 1e-5  # of the norm over each head of the delta rule, whatever rms_norm_eps says
# the checkpoint's norms of a layer's two sub-layers: what is written here, and what transformers writes
PRE = (("attention_layer_norm", "input_layernorm"), ("feedforward_layer_norm", "post_attention_layernorm"))
POST = (("post_attention_layernorm", "feedforward_layer_norm"), ("post_feedforward_layernorm", "post_feedforward_layernorm"))


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    turned = (hf.get("rope_scaling") or hf.get("rope_parameters") or {}).get(
        "rope_theta", 10000.0
    ) is not None  # a base of null: no positions
    hf = _sized(dense.read(hf, DEFAULTS))
    experts.silu(hf)
    attention = dense.attention(hf, rope.to_zoo(hf, 10000.0) if turned else None, qk_norm="full", norm_eps=hf["rms_norm_eps"])
    rule = delta.mixer(hf, norm_eps=NORM_EPS, **({"negative_eigenvalues": True} if hf["linear_allow_neg_eigval"] else {}))
    channel, post = dense.gated(hf), {"norm_place": "post"}
    sublayers: list[Any] = []
    for kind in delta.layer_types(hf):
        sublayers += [[rule], [channel]] if kind == delta.LINEAR else [[attention | post], [channel | post]]
    return dense.model(hf, sublayers)


def _sized(hf: Mapping[str, Any]) -> dict[str, Any]:
    """With the widths that the class derives."""
    heads, n = hf["num_attention_heads"], hf["num_hidden_layers"]
    types = hf["layer_types"] or delta.layer_types({**hf, "full_attention_interval": 4 if n >= 4 else n})
    keys = hf["linear_num_key_heads"] or heads
    width = hf["linear_key_head_dim"] or int(0.75 * hf["hidden_size"] / keys)
    return {
        **hf,
        "layer_types": types,
        "linear_num_key_heads": keys,
        "linear_num_value_heads": hf["linear_num_value_heads"] or heads,
        "linear_key_head_dim": width,
        "linear_value_head_dim": hf["linear_value_head_dim"] or 2 * width,
    }


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = experts.only_dense(config, "olmo_hybrid", "gqa", "gated_delta")
    attention, rule = delta.mixers(config, layers, "olmo_hybrid")
    common = dense.to_hf(config, "OlmoHybrid", "olmo_hybrid", [(attention, layers[0][1])] * len(layers))
    del common["head_dim"]
    parameters = {"rope_type": "default", "rope_theta": None} if attention.rope is None else common["rope_parameters"]
    return common | delta.to_hf(layers, rule) | {"linear_allow_neg_eigval": rule.negative_eigenvalues, "rope_parameters": parameters}


def rules(config: ModelConfig) -> list[Entry]:
    entries = dense.ends(config)
    for layer, place, channel in experts.pairs(config):
        hf = f"model.layers.{layer}"
        is_delta = place.type == "gated_delta"
        entries += _delta_rules(place, f"{hf}.linear_attn") if is_delta else dense.attention_rules(place, f"{hf}.self_attn")
        entries += dense.gated_rules(channel, f"{hf}.mlp")
        norms = "norms" if is_delta else "post_norms"
        for i, (name, other) in enumerate(PRE if is_delta else POST):
            entries.append(Rule(f"stack.{norms}.{2 * layer + i}.weight", f"{hf}.{name}.weight"))
            entries.append(Also(f"{hf}.{name}.weight", f"{hf}.{other}.weight"))
    return entries


def _delta_rules(place: Any, hf: str) -> list[Rule]:
    names = {"decay.weight": "a_proj.weight", "output_gate.weight": "g_proj.weight", "A_log": "A_log"}
    own = [Rule(f"{place.weights}.{zoo}", f"{hf}.{name}") for zoo, name in names.items()]
    return [*delta.separate_rules(place, hf), *own]
