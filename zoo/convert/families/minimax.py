"""MiniMax-01 (arXiv:2501.08313): lightning attention among softmax attention, experts, and a normed stream that sub-layers are added to.

The published checkpoints (MiniMax-Text-01, MiniMax-M1) name things as their own code does and turn `rotary_dim` = 64 of the 128
dimensions of a head. The class of transformers 5 turns whole heads whatever config.json says: it is not quite the published model. The
zoo computes the published model where config.json says rotary_dim or partial_rotary_factor (such a model is not written for that class),
and what the class computes where it says neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks import gla, gqa, swiglu
from blocks.errors import ConfigError, require
from zoo.config.model import ModelConfig
from zoo.convert.shared import delta, dense, experts, rope
from zoo.convert.shared.layers import Place, places
from zoo.convert.weight_map import Entry, NotAWeight, Rule, linear
from zoo.convert.weight_ops import Permute, ungrouped

MODEL_TYPES = ("minimax", "minimax_text_01", "minimax_m1")
MODELS = ("minimax_text_01",)
DEFAULTS: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "sliding_window": None,
    "num_experts_per_tok": 2,
    "num_local_experts": 8,
    "layer_types": None,
    "full_attn_alpha_factor": 1,
    "full_attn_beta_factor": 1,
    "linear_attn_alpha_factor": 1,
    "linear_attn_beta_factor": 1,
    "mlp_alpha_factor": 1,
    "mlp_beta_factor": 1,
    "rotary_dim": None,
}
PUBLISHED = {  # keys of the published checkpoints -> those of the class
    f"layernorm_{what}_{which}": f"{short}_{which}_factor"
    for what, short in (("full_attention", "full_attn"), ("linear_attention", "linear_attn"), ("mlp", "mlp"))
    for which in ("alpha", "beta")
}
NORM_EPS = 1e-6  # of lightning attention's norm, whatever rms_norm_eps says
BUFFERS = ("slope_rate", "query_decay", "key_decay", "diagonal_decay")


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(_renamed(hf), DEFAULTS, {"num_experts": "num_local_experts"})
    experts.silu(hf)
    n = hf["num_hidden_layers"]
    types = delta.layer_types({**hf, "layer_types": hf["layer_types"] or [delta.LINEAR if i % 2 else delta.FULL for i in range(n)]})
    attention = dense.attention(hf, _rope(hf), window=hf["sliding_window"]) | _factors(hf, "full_attn")
    lightning = _lightning(hf) | _factors(hf, "linear_attn")
    moe = {"type": "moe", "n_experts": hf["num_local_experts"], "top_k": hf["num_experts_per_tok"], "hidden": hf["intermediate_size"]}
    mixers = delta.chosen(types, lightning, attention)
    return dense.model(hf, dense.pairs(mixers, moe | _factors(hf, "mlp")), norm_place="stream")


def _renamed(hf: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json in the class's words. Raises ConfigError for variants of the published code that no checkpoint uses."""
    if hf["model_type"] == "minimax":
        return dict(hf)
    require(bool(hf.get("postnorm")), "postnorm", hf.get("postnorm"), "the zoo has only the model with postnorm = true")
    shared = hf.get("shared_intermediate_size", 0)
    require(shared in (0, [0]), "shared_intermediate_size", shared, "the zoo has only the model without a shared expert, 0")
    kinds = hf.get("attn_type_list") or []
    require(kinds != [] and set(kinds) <= {0, 1}, "attn_type_list", kinds, "must hold 0 (lightning attention) and 1 (attention)")
    types = [delta.FULL if kind else delta.LINEAR for kind in kinds]
    return {PUBLISHED.get(key, key): value for key, value in hf.items()} | {"layer_types": types}


def _rope(hf: Mapping[str, Any]) -> dict[str, Any]:
    width = hf["head_dim"] or hf["hidden_size"] // hf["num_attention_heads"]
    share = {} if hf["rotary_dim"] is None else {"partial_rotary_factor": hf["rotary_dim"] / width}
    return rope.to_zoo({**hf, **share}, 1e6, partial=True)


def _factors(hf: Mapping[str, Any], what: str) -> dict[str, float]:
    return {"skip_scale": float(hf[f"{what}_alpha_factor"]), "output_scale": float(hf[f"{what}_beta_factor"])}


def _lightning(hf: Mapping[str, Any]) -> dict[str, Any]:
    heads = hf["num_attention_heads"]
    share = heads * (hf["head_dim"] or hf["hidden_size"] // heads) / hf["hidden_size"]
    return {
        "type": "gla",
        "n_heads": heads,
        "expand_k": share,
        "expand_v": share,
        "gate": "lightning",
        "qk_activation": "silu",
        "v_activation": "silu",
        "norm": "full",
        "output_gate": "sigmoid",
        "scale": 1.0,
        "norm_eps": NORM_EPS,
    }


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = experts.only(config, "minimax", "gqa", "gla")
    moe = experts.mixture(config, layers, "minimax")
    attention = next((m for m, _ in layers if isinstance(m, gqa.Config)), None)
    if attention is None or not any(isinstance(m, gla.Config) for m, _ in layers):
        raise ConfigError("pattern", config.pattern, "minimax has layers of gla and layers of gqa")
    share = 1.0 if attention.rope is None else attention.rope.partial
    require(share == 1, "rope.partial", share, "minimax's class in transformers turns whole heads", "--family zoo keeps it")
    common = dense.to_hf(config, "MiniMax", "minimax", [(attention, swiglu.Config(hidden=moe.hidden))] * len(layers))
    del common["attention_bias"]
    found_factors: dict[str, float] = {}
    for (place,) in places(config):
        use, what = config.named[place.name], {"gqa": "full_attn", "gla": "linear_attn"}.get(place.type, "mlp")
        found_factors |= {f"{what}_alpha_factor": use.skip_scale, f"{what}_beta_factor": use.output_scale}
    return (
        common
        | found_factors
        | {
            "layer_types": [delta.FULL if isinstance(m, gqa.Config) else delta.LINEAR for m, _ in layers],
            "sliding_window": attention.window,
            "num_experts_per_tok": moe.top_k,
            "num_local_experts": moe.n_experts,
        }
    )


def rules(config: ModelConfig) -> list[Entry]:
    """The weight map; transformers keeps the fixed decays beside the weights."""
    entries = [*experts.surroundings(config), *(NotAWeight(f"*.self_attn.{name}") for name in BUFFERS)]
    for layer, mixer, channel in experts.pairs(config):
        hf = f"model.layers.{layer}"
        is_gla = mixer.type == "gla"
        entries += _lightning_rules(mixer, config.d_model, f"{hf}.self_attn") if is_gla else dense.attention_rules(mixer, f"{hf}.self_attn")
        inside = f"{hf}.block_sparse_moe"
        entries += experts.expert_rules(channel, f"{inside}.experts", ("w1", "w3", "w2"))
        entries += linear(f"{channel.weights}.router", f"{inside}.gate")
    return entries


def _lightning_rules(place: Place, d_model: int, hf: str) -> list[Rule]:
    """qkv_proj holds each head's q, k and v in turn."""
    config: Any = place.config
    w, heads, (keys, values) = place.weights, config.n_heads, config.widths(d_model)
    require(keys == values, "expand_v", config.expand_v, f"must be expand_k = {config.expand_k} in minimax")
    order = Permute(ungrouped(heads, (keys // heads,) * 3))
    names = {"norm": "norm", "z_proj": "output_gate", "out_proj": "out_proj"}
    own = [Rule(f"{w}.{zoo}.weight", f"{hf}.{name}.weight") for zoo, name in names.items()]
    return [Rule(f"{w}.in_proj.weight", f"{hf}.qkv_proj.weight", order), *own]
