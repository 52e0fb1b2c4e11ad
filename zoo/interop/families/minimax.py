"""MiniMax-01 (arXiv:2501.08313): lightning attention among softmax attention, experts, and a normed stream that sub-layers are added to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks import gla, gqa, swiglu
from blocks.base import ConfigError, require
from zoo.config import ModelConfig
from zoo.interop import delta, dense, experts, rope
from zoo.interop.layers import Place, places
from zoo.interop.maps import Entry, NotAWeight, Permute, Rule, linear, ungrouped

MODEL_TYPES = ("minimax",)
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
}
NORM_EPS = 1e-6  # of lightning attention's norm, whatever rms_norm_eps says
BUFFERS = ("slope_rate", "query_decay", "key_decay", "diagonal_decay")


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    experts.silu(hf)
    n = hf["num_hidden_layers"]
    types = delta.layer_types({**hf, "layer_types": hf["layer_types"] or [delta.LINEAR if i % 2 else delta.FULL for i in range(n)]})
    attention = dense.attention(hf, rope.to_zoo(hf, 1e6), window=hf["sliding_window"]) | _factors(hf, "full_attn")
    lightning = _lightning(hf) | _factors(hf, "linear_attn")
    moe = {"type": "moe", "n_experts": hf["num_local_experts"], "top_k": hf["num_experts_per_tok"], "hidden": hf["intermediate_size"]}
    mixers = delta.chosen(types, lightning, attention)
    return dense.model(hf, dense.pairs(mixers, moe | _factors(hf, "mlp")), norm_place="stream")


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
    found = experts.only(config, "minimax", "gqa", "gla")
    moe = experts.mixture(config, found, "minimax")
    attention = next((m for m, _ in found if isinstance(m, gqa.Config)), None)
    if attention is None or not any(isinstance(m, gla.Config) for m, _ in found):
        raise ConfigError("pattern", config.pattern, "minimax has layers of gla and layers of gqa")
    common = dense.to_hf(config, "MiniMax", "minimax", [(attention, swiglu.Config(hidden=moe.hidden))] * len(found))
    del common["attention_bias"]
    found_factors: dict[str, float] = {}
    for (place,) in places(config):
        use, what = config.named[place.name], {"gqa": "full_attn", "gla": "linear_attn"}.get(place.type, "mlp")
        found_factors |= {f"{what}_alpha_factor": use.skip_scale, f"{what}_beta_factor": use.output_scale}
    return (
        common
        | found_factors
        | {
            "layer_types": [delta.FULL if isinstance(m, gqa.Config) else delta.LINEAR for m, _ in found],
            "sliding_window": attention.window,
            "num_experts_per_tok": moe.top_k,
            "num_local_experts": moe.n_experts,
        }
    )


def rules(config: ModelConfig) -> list[Entry]:
    """The weight map; transformers keeps the fixed decays beside the weights."""
    found = [*experts.surroundings(config), *(NotAWeight(f"*.self_attn.{name}") for name in BUFFERS)]
    for layer, mixer, channel in experts.pairs(config):
        theirs = f"model.layers.{layer}"
        is_gla = mixer.type == "gla"
        found += (
            _lightning_rules(mixer, config.d_model, f"{theirs}.self_attn")
            if is_gla
            else dense.attention_rules(mixer, f"{theirs}.self_attn")
        )
        inside = f"{theirs}.block_sparse_moe"
        found += experts.expert_rules(channel, f"{inside}.experts", ("w1", "w3", "w2"))
        found += linear(f"{channel.weights}.router", f"{inside}.gate")
    return found


def _lightning_rules(place: Place, d_model: int, theirs: str) -> list[Rule]:
    """qkv_proj holds each head's q, k and v in turn."""
    config: Any = place.config
    w, heads, (keys, values) = place.weights, config.n_heads, config.widths(d_model)
    require(keys == values, "expand_v", config.expand_v, f"must be expand_k = {config.expand_k} in minimax")
    order = Permute(ungrouped(heads, (keys // heads,) * 3))
    names = {"norm": "norm", "z_proj": "output_gate", "out_proj": "out_proj"}
    own = [Rule(f"{w}.{ours}.weight", f"{theirs}.{name}.weight") for ours, name in names.items()]
    return [Rule(f"{w}.in_proj.weight", f"{theirs}.qkv_proj.weight", order), *own]
