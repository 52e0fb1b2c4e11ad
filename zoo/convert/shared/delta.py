"""What the hybrids of the delta rule share: layers of gated_delta among layers of attention, each before a channel mixer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from blocks import gated_delta
from blocks.errors import ConfigError, one_of, require
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, experts
from zoo.convert.shared.layers import Place, Spec
from zoo.convert.weight_map import Entry, LeftOut, Rule, Within, linear
from zoo.convert.weight_ops import Concat, Permute, Split, Squeeze, ungrouped

LINEAR, FULL = "linear_attention", "full_attention"


def layer_types(hf: Mapping[str, Any]) -> list[str]:
    """layer_types, or where config.json has none attention in every full_attention_interval-th layer. Raises ConfigError."""
    n, every = hf["num_hidden_layers"], hf.get("full_attention_interval") or 4
    types = hf["layer_types"] or [FULL if (i + 1) % every == 0 else LINEAR for i in range(n)]
    require(len(types) == n, "layer_types", len(types), f"must name {n} layers")
    for kind in types:
        one_of("layer_types", kind, (LINEAR, FULL))
    return types


def chosen(types: Sequence[str], delta: Spec, attention: Spec) -> list[Spec]:
    """The mixer of each layer."""
    return [delta if kind == LINEAR else attention for kind in types]


def mixer(hf: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The gated delta rule of a config.json; more: other fields of gated_delta."""
    key, value = hf["linear_key_head_dim"], hf["linear_value_head_dim"]
    sizes = {"n_heads": hf["linear_num_key_heads"], "n_v_heads": hf["linear_num_value_heads"], "head_dim": key, "expand_v": value / key}
    return {"type": "gated_delta"} | sizes | {"conv": hf["linear_conv_kernel_dim"]} | more


def gated_attention(hf: Mapping[str, Any], rope_: Mapping[str, Any]) -> dict[str, Any]:
    """Qwen's attention since Qwen3-Next: centred norms of each head, a sigmoid on every channel of the output."""
    dense.refuse(hf, attention_bias=False)
    turned = int(hf["head_dim"] * rope_.get("partial", 1.0))
    require(turned % 2 == 0, "partial_rotary_factor", rope_.get("partial", 1.0), f"must turn pairs, not {turned} channels of a head")
    return dense.attention(hf, rope_, qk_norm="head", qk_norm_kind="rmsnorm_centred", norm_eps=hf["rms_norm_eps"], output_gate="element")


def mixers(config: ModelConfig, layers: Sequence[tuple[Any, Any]], family: str) -> tuple[Any, gated_delta.Config]:
    """The first attention and the first delta rule. Raises ConfigError unless there are both."""
    delta = next((m for m, _ in layers if isinstance(m, gated_delta.Config)), None)
    attention = next((m for m, _ in layers if not isinstance(m, gated_delta.Config)), None)
    if delta is None or attention is None:
        raise ConfigError("pattern", config.pattern, f"{family} has layers of gated_delta and layers of attention")
    return attention, delta


def to_hf(layers: Sequence[tuple[Any, Any]], delta: gated_delta.Config) -> dict[str, Any]:
    """The keys of config.json about the delta rule, and which layers have it."""
    assert delta.head_dim is not None
    return {
        "layer_types": [LINEAR if isinstance(m, gated_delta.Config) else FULL for m, _ in layers],
        "linear_num_key_heads": delta.n_heads,
        "linear_num_value_heads": delta.value_heads,
        "linear_key_head_dim": delta.head_dim,
        "linear_value_head_dim": round(delta.expand_v * delta.head_dim),
        "linear_conv_kernel_dim": delta.conv,
    }


def gated_attention_rules(place: Place, hf: str) -> list[Rule]:
    """q_proj holds each head's queries and then its gates; k_proj, v_proj, o_proj, q_norm and k_norm as everywhere."""
    config: Any = place.config
    e, w = config.head_dim, place.weights
    q, kv = config.n_heads * e, config.n_kv_heads * e
    parts = ungrouped(config.n_heads, (e, e))
    order = (*parts[:q], *range(2 * q, 2 * q + 2 * kv), *parts[q:])
    names = [f"{hf}.{name}_proj.weight" for name in "qkv"]
    steps = (Concat((2 * q, kv, kv)), Permute(order), Split((q + 2 * kv, q)))
    norms = [Rule(f"{w}.{name}_norm.weight", f"{hf}.{name}_norm.weight") for name in "qk"]
    return [Rule((f"{w}.qkv.weight", f"{w}.gate.weight"), names, *steps), *linear(f"{w}.out", f"{hf}.o_proj"), *norms]


def fused_rules(place: Place, hf: str) -> list[Rule]:
    """in_proj_qkvz and in_proj_ba hold, key head by key head, that head's q, k, v's and z's, and its b's and a's."""
    config, w = _delta(place), place.weights
    h, hv, (k, v) = config.n_heads, config.value_heads, widths(config)
    r = hv // h
    wide, narrow = Permute(ungrouped(h, (k, k, r * v, r * v))), Permute(ungrouped(h, (r, r)))
    return [
        Rule((f"{w}.qkv.weight", f"{w}.output_gate.weight"), f"{hf}.in_proj_qkvz.weight", wide, Split((2 * h * k + hv * v, hv * v))),
        Rule((f"{w}.beta.weight", f"{w}.decay.weight"), f"{hf}.in_proj_ba.weight", narrow, Split((hv, hv))),
        Rule(f"{w}.conv.weight", f"{hf}.conv1d.weight", Squeeze()),
        Rule(f"{w}.A_log", f"{hf}.A_log"),
        *end_rules(place, hf, "norm", "out_proj"),
    ]


def split_rules(place: Place, hf: str) -> list[Rule]:
    """in_proj_qkv, in_proj_z, in_proj_b and in_proj_a, part after part as in gated_delta."""
    names = {"qkv": "in_proj_qkv", "output_gate": "in_proj_z", "beta": "in_proj_b", "decay": "in_proj_a"}
    return [
        Rule(f"{place.weights}.A_log", f"{hf}.A_log"),
        *(Rule(f"{place.weights}.{zoo}.weight", f"{hf}.{name}.weight") for zoo, name in names.items()),
        Rule(f"{place.weights}.conv.weight", f"{hf}.conv1d.weight", Squeeze()),
        *end_rules(place, hf, "norm", "out_proj"),
    ]


def separate_rules(place: Place, hf: str, output: str = "o_proj") -> list[Rule]:
    """q_proj, k_proj, v_proj and a convolution of each; b_proj, o_norm and o_proj. Decay, its rates and output gate are the family's."""
    config, w = _delta(place), place.weights
    h, hv, (k, v) = config.n_heads, config.value_heads, widths(config)
    parts = Concat((h * k, h * k, hv * v))
    return [
        Rule(f"{w}.qkv.weight", [f"{hf}.{name}_proj.weight" for name in "qkv"], parts),
        Rule(f"{w}.conv.weight", [f"{hf}.{name}_conv1d.weight" for name in "qkv"], parts, Squeeze()),
        Rule(f"{w}.beta.weight", f"{hf}.b_proj.weight"),
        *end_rules(place, hf, "o_norm", output),
    ]


def end_rules(place: Place, hf: str, norm: str, output: str) -> list[Rule]:
    """The norm over each head, the output projection, and the bias of the steps."""
    names = {"norm.weight": f"{norm}.weight", "output.weight": f"{output}.weight", "dt_bias": "dt_bias"}
    return [Rule(f"{place.weights}.{zoo}", f"{hf}.{name}") for zoo, name in names.items()]


def widths(config: gated_delta.Config) -> tuple[int, int]:
    """Key and value width of a head."""
    assert config.head_dim is not None
    return config.head_dim, round(config.expand_v * config.head_dim)


def _delta(place: Place) -> gated_delta.Config:
    assert isinstance(place.config, gated_delta.Config)
    return place.config


def rules(config: ModelConfig, of_delta: Callable[[Place, str], list[Rule]]) -> list[Entry]:
    """The weight map of Qwen's hybrids; mtp.* predicts further tokens (multi-token prediction)."""
    entries = [*experts.surroundings(config), LeftOut("mtp.*")]
    for layer, place, channel in experts.pairs(config):
        hf = f"model.layers.{layer}"
        is_delta = place.type == "gated_delta"
        entries += of_delta(place, f"{hf}.linear_attn") if is_delta else gated_attention_rules(place, f"{hf}.self_attn")
        entries += channel_rules(channel, f"{hf}.mlp")
    return entries


def seeing(entries: Sequence[Entry]) -> list[Entry]:
    """The weight map where the checkpoint may be that of a model that also sees."""
    return [*entries, Within("model.", "model.language_model."), LeftOut("model.visual.*")]


def channel_rules(place: Place, hf: str) -> list[Entry]:
    """A dense layer, or Qwen's mixture: experts, a shared one with its gate."""
    if place.type == "swiglu":
        return [*dense.gated_rules(place, hf)]
    entries = [*experts.fused_rules(place, f"{hf}.experts"), *experts.router_rules(place, f"{hf}.gate")]
    gate = Rule(f"{place.weights}.shared_gate.weight", f"{hf}.shared_expert_gate.weight")
    return [*entries, *experts.shared_rules(place, f"{hf}.shared_expert"), gate]
