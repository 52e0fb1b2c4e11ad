"""The text model of Llama 4: chunks with rotary positions, every few layers all tokens without positions, experts in some layers. Of a
checkpoint that also sees the text model is read, its vision tower left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks import swiglu
from blocks.errors import one_of, require
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, experts, rope
from zoo.convert.weight_map import Entry, LeftOut, Within

MODEL_TYPES = ("llama4_text", "llama4")
MODELS = ("llama4_scout",)
DEFAULTS: dict[str, Any] = {
    "vocab_size": 202048,
    "hidden_size": 5120,
    "intermediate_size": 8192,
    "intermediate_size_mlp": 16384,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 4096 * 32,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "num_experts_per_tok": 1,
    "num_local_experts": 16,
    "interleave_moe_layer_step": 1,
    "use_qk_norm": True,
    "no_rope_layer_interval": 4,
    "attention_chunk_size": 8192,
    "attn_temperature_tuning": True,
    "floor_scale": 8192,
    "attn_scale": 0.1,
    "attention_bias": False,
    "moe_layers": None,
    "no_rope_layers": None,
    "layer_types": None,
}
KINDS = ("chunked_attention", "full_attention")


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(dense.text(hf, "llama4"), DEFAULTS)
    experts.silu(hf)
    n, step = hf["num_hidden_layers"], hf["interleave_moe_layer_step"]
    rotary = hf["no_rope_layers"] or [int((i + 1) % hf["no_rope_layer_interval"] != 0) for i in range(n)]  # 1: with positions
    kinds = hf["layer_types"] or [KINDS[0] if r else KINDS[1] for r in rotary]
    for kind in kinds:
        one_of("layer_types", kind, KINDS)
    moe = {"type": "moe", "n_experts": hf["num_local_experts"], "top_k": hf["num_experts_per_tok"], "hidden": hf["intermediate_size"]}
    moe |= {"scores": "sigmoid", "normalize": False, "weigh": "input", "n_shared": 1}
    chosen = hf["moe_layers"]
    sparse = [(i + 1) % step == 0 if chosen is None else i in chosen for i in range(n)]
    channel = dense.gated(hf | {"intermediate_size": hf["intermediate_size_mlp"]})
    attentions = [_attention(hf, bool(r), kind) for r, kind in zip(rotary, kinds, strict=True)]
    return dense.model(hf, experts.mixed(attentions, channel, moe, sparse))


def _attention(hf: Mapping[str, Any], rotary: bool, kind: str) -> dict[str, Any]:
    turned = rope.to_zoo(hf, 500000.0, pairs="adjacent") if rotary else None
    spec = dense.attention(hf, turned, chunk=hf["attention_chunk_size"] if kind == KINDS[0] else None)
    if rotary and hf["use_qk_norm"]:
        spec |= {"qk_norm": "head", "qk_norm_kind": "rmsnorm_plain", "qk_norm_after_rope": True, "norm_eps": hf["rms_norm_eps"]}
    if not rotary and hf["attn_temperature_tuning"]:
        spec |= {"temperature": {"scale": hf["attn_scale"], "every": hf["floor_scale"]}}
    return spec


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = experts.only(config, "llama4_text", "gqa")
    moe, plain = experts.mixture(config, layers, "llama4_text"), experts.first(layers, swiglu.Config)
    attentions = [attention for attention, _ in layers]
    turned = next((a for a in attentions if a.rope is not None), attentions[0])
    require(turned.rope is not None, "rope", None, "llama4_text has rotary positions in some layer")
    tuned = next((a.temperature for a in attentions if a.temperature is not None), None)
    channel = swiglu.Config(hidden=moe.hidden) if plain is None else plain
    return dense.to_hf(config, "Llama4", "llama4_text", [(turned, channel)] * len(layers)) | {
        "intermediate_size": moe.hidden,
        "intermediate_size_mlp": channel.hidden,
        "num_local_experts": moe.n_experts,
        "num_experts_per_tok": moe.top_k,
        "moe_layers": [i for i, (_, c) in enumerate(layers) if experts.is_moe(c)],
        "use_qk_norm": turned.qk_norm == "head",
        "no_rope_layers": [int(a.rope is not None) for a in attentions],
        "layer_types": [KINDS[a.chunk is None] for a in attentions],
        "attention_chunk_size": next((a.chunk for a in attentions if a.chunk is not None), 8192),
        "attn_temperature_tuning": tuned is not None,
        **({} if tuned is None else {"attn_scale": tuned.scale, "floor_scale": tuned.every}),
    }


def rules(config: ModelConfig) -> list[Entry]:
    entries = [*experts.surroundings(config), Within("", "language_model."), LeftOut("vision_model.*"), LeftOut("multi_modal_projector.*")]
    for layer, attention, channel in experts.pairs(config):
        hf = f"model.layers.{layer}.feed_forward"
        entries += dense.attention_rules(attention, f"model.layers.{layer}.self_attn")
        if channel.type == "swiglu":
            entries += dense.gated_rules(channel, hf)
            continue
        entries += [*experts.stacked_rules(channel, f"{hf}.experts"), *experts.shared_rules(channel, f"{hf}.shared_expert")]
        entries += experts.router_rules(channel, f"{hf}.router")
    return entries
