"""What DeepSeek's families share: latent attention, dense layers first and then mixtures of experts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from blocks import swiglu
from blocks.errors import require
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, experts, rope
from zoo.convert.shared.layers import Place
from zoo.convert.weight_map import Entry, LeftOut, Rule, linear

NAMES = {
    "q_down": "q_a_proj",
    "q_norm": "q_a_layernorm",
    "kv_down": "kv_a_proj_with_mqa",
    "kv_norm": "kv_a_layernorm",
    "kv_up": "kv_b_proj",
    "out": "o_proj",
    "indexer.q": "indexer.wq_b",
    "indexer.k": "indexer.wk",
    "indexer.k_norm": "indexer.k_norm",
    "indexer.weights": "indexer.weights_proj",
}
SIZES = {"kv_rank": "kv_lora_rank", "nope_dim": "qk_nope_head_dim", "rope_dim": "qk_rope_head_dim", "value_dim": "v_head_dim"}


def attention(hf: Mapping[str, Any], *, pairs: str = "adjacent") -> dict[str, Any]:
    """The latent attention of a config.json. Raises ConfigError."""
    heads, kv = hf["num_attention_heads"], hf.get("num_key_value_heads")
    require(kv in (None, heads), "num_key_value_heads", kv, f"must be num_attention_heads = {heads}: every head has keys of its own")
    spec = {"type": "mla", "n_heads": heads, "q_rank": hf["q_lora_rank"], "rope": rope.to_zoo(hf, 10000.0, pairs=pairs)}
    spec |= {zoo: hf[key] for zoo, key in SIZES.items()} | ({"bias": True} if hf.get("attention_bias") else {})
    params = hf.get("rope_scaling") or hf.get("rope_parameters") or {}
    scaling = spec["rope"].get("scaling", {})
    if scaling and params.get("mscale_all_dim"):
        grown = rope.growth(scaling["factor"], params["mscale_all_dim"])
        spec["scale"] = (spec["nope_dim"] + spec["rope_dim"]) ** -0.5 * grown * grown
    return spec


def indexer(hf: Mapping[str, Any], *, pairs: str) -> dict[str, Any]:
    """The indexer's fields of a config.json."""
    sizes = {"index_heads": hf["index_n_heads"], "index_dim": hf["index_head_dim"], "index_top_k": hf["index_topk"]}
    return sizes | {"index_pairs": pairs}


def mixture(hf: Mapping[str, Any]) -> dict[str, Any]:
    """The experts of DeepSeek-V3 and those after it: a sigmoid, a selection bias, groups by their two best."""
    experts.silu(hf)
    return {
        "type": "moe",
        "n_experts": hf["n_routed_experts"],
        "top_k": hf["num_experts_per_tok"],
        "hidden": hf["moe_intermediate_size"],
        "scores": "sigmoid",
        "selection_bias": True,
        "normalize": bool(hf["norm_topk_prob"]),
        "routed_scale": float(hf["routed_scaling_factor"]),
        "n_shared": hf["n_shared_experts"],
        **grouped(hf),
    }


def grouped(hf: Mapping[str, Any]) -> dict[str, Any]:
    """Groups that leave experts out; none where a token may choose from all of them."""
    groups, top = hf.get("n_group") or 1, hf.get("topk_group") or 1
    return {"groups": groups, "top_groups": top} if groups > top else {}


def model(hf: Mapping[str, Any], attention_: Mapping[str, Any], mixture_: Mapping[str, Any]) -> dict[str, Any]:
    """A model mapping: `first_k_dense_replace` dense layers, or mlp_layer_types."""
    return mixed(hf, [attention_] * hf["num_hidden_layers"], mixture_)


def mixed(hf: Mapping[str, Any], mixers: Sequence[Mapping[str, Any]], mixture_: Mapping[str, Any]) -> dict[str, Any]:
    """`model` with a mixer of its own in each layer."""
    n = hf["num_hidden_layers"]
    types = hf.get("mlp_layer_types") or ["dense" if i < hf["first_k_dense_replace"] else "sparse" for i in range(n)]
    require(len(types) == n and set(types) <= {"dense", "sparse"}, "mlp_layer_types", types, f"must be {n} of dense and sparse")
    channel = dense.gated(hf)
    return dense.model(hf, experts.mixed(mixers, channel, mixture_, [kind == "sparse" for kind in types]))


def to_hf(config: ModelConfig, name: str, model_type: str) -> dict[str, Any]:
    """The keys of config.json that all these families have. name: of the class in transformers."""
    layers = experts.only(config, model_type, "mla")
    return keys(config, layers, layers[0][0], name, model_type)


def keys(config: ModelConfig, layers: Sequence[tuple[Any, Any]], first: Any, name: str, model_type: str) -> dict[str, Any]:
    """`to_hf` of layers whose attention, or the first of many, is `first`."""
    channel = experts.first(layers, swiglu.Config)
    moe: Any = experts.mixture(config, layers, model_type)
    params = rope.to_hf(first.rope) | _temperature(first)
    sizes = {hf: getattr(first, zoo) for zoo, hf in SIZES.items()}
    shared, rest = divmod(moe.shared_hidden, moe.hidden)
    require(rest == 0 and shared > 0, "shared_hidden", moe.shared_hidden, f"must be a multiple of hidden = {moe.hidden} in {model_type}")
    return sizes | {
        "model_type": model_type,
        "architectures": [f"{name}ForCausalLM"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": moe.hidden if channel is None else channel.hidden,
        "moe_intermediate_size": moe.hidden,
        "num_hidden_layers": len(layers),
        "num_attention_heads": first.n_heads,
        "num_key_value_heads": first.n_heads,
        "q_lora_rank": first.q_rank,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": first.bias,
        "rope_parameters": params,
        "max_position_embeddings": dense.LONGEST,
        "n_routed_experts": moe.n_experts,
        "num_experts_per_tok": moe.top_k,
        "n_shared_experts": shared,
        "n_group": moe.groups,
        "topk_group": moe.top_groups,
        "norm_topk_prob": moe.normalize,
        "routed_scaling_factor": moe.routed_scale,
        "first_k_dense_replace": [experts.is_moe(c) for _, c in layers].index(True),
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def _temperature(attention_: Any) -> dict[str, float]:
    """mscale_all_dim of a scale that isn't that of the heads' width."""
    grown = attention_.scale * math.sqrt(attention_.nope_dim + attention_.rope_dim)
    scaling = None if attention_.rope is None else attention_.rope.scaling
    if scaling is None or scaling.kind != "yarn" or math.isclose(grown, 1, rel_tol=1e-12):
        return {}
    return {"mscale_all_dim": (math.sqrt(grown) - 1) / (0.1 * math.log(scaling.factor))}


def index_to_hf(layers: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    """The indexer's keys of config.json, from the first layer, and the kind of every layer's channel mixer."""
    first = layers[0][0]
    kinds = ["sparse" if experts.is_moe(channel) else "dense" for _, channel in layers]
    sizes = {"index_n_heads": first.index_heads, "index_head_dim": first.index_dim, "index_topk": first.index_top_k}
    return sizes | {"mlp_layer_types": kinds}


def attention_rules(place: Place, hf: str) -> list[Rule]:
    """The projections, norms and indexer of an attention layer."""
    config: Any = place.config
    names = NAMES | {"q_up": "q_proj" if config.q_rank is None else "q_b_proj"}
    return [rule for zoo, name in names.items() for rule in linear(f"{place.weights}.{zoo}", f"{hf}.{name}")]


def rules(config: ModelConfig) -> list[Entry]:
    """The weight map. What stands behind the last layer predicts further tokens (multi-token prediction) and is no part of the model."""
    entries = experts.surroundings(config)
    for layer, attention_, channel in experts.pairs(config):
        hf = f"model.layers.{layer}"
        entries += [*attention_rules(attention_, f"{hf}.self_attn"), *experts.deepseek_rules(channel, f"{hf}.mlp")]
    return [*entries, LeftOut(f"model.layers.{len(config.layers) // 2}.*")]
