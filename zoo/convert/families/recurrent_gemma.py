"""RecurrentGemma (Griffin, arXiv:2402.19427; arXiv:2404.07839): RG-LRU blocks and local attention in a cycle, GEGLUs between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from blocks import gqa, rg_lru
from blocks.errors import one_of, require
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense, rope
from zoo.convert.weight_map import Entry, Rule, linear
from zoo.convert.weight_ops import Concat, Squeeze

MODEL_TYPES = ("recurrent_gemma",)
MODELS = ("recurrentgemma_2b",)
DEFAULTS: dict[str, Any] = {
    "vocab_size": 256000,
    "hidden_size": 2560,
    "intermediate_size": 7680,
    "num_hidden_layers": 26,
    "num_attention_heads": 10,
    "num_key_value_heads": None,
    "lru_width": None,
    "attention_window_size": 2048,
    "conv1d_width": 4,
    "logits_soft_cap": 30.0,
    "rms_norm_eps": 1e-6,
    "hidden_activation": "gelu_pytorch_tanh",
    "block_types": ("recurrent", "recurrent", "attention"),
    "attention_bias": False,
    "tie_word_embeddings": True,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = {"partial_rotary_factor": 0.5, **dense.read(hf, DEFAULTS, {"sliding_window": "attention_window_size"})}
    act = dense.activation(hf["hidden_activation"])
    channel = {"type": "swiglu", "hidden": hf["intermediate_size"] // 2, "activation": act, "bias": True}
    turns = rope.to_zoo(hf, 10000.0, partial=True)
    rotated = int(hf["hidden_size"] // hf["num_attention_heads"] * turns.get("partial", 1.0))
    require(rotated % 2 == 0, "partial_rotary_factor", turns.get("partial"), f"rotates {rotated} channels of a head: they must be even")
    more = {"window": hf["attention_window_size"], "output_bias": True}
    mixers: dict[str, dict[str, Any]] = {
        "recurrent": {
            "type": "rg_lru",
            "width": hf["lru_width"] or hf["hidden_size"],
            "n_heads": hf["num_attention_heads"],
            "conv": hf["conv1d_width"],
            "activation": act,
        },
        "attention": dense.attention(hf, turns, **more),
    }
    for kind in hf["block_types"]:
        one_of("block_types", kind, tuple(mixers))
    n, cycle = hf["num_hidden_layers"], hf["block_types"]
    return dense.model(
        hf,
        dense.pairs([mixers[cycle[i % len(cycle)]] for i in range(n)], channel),
        norm="rmsnorm_centred",
        embedding_scale=embedding_scale(hf["hidden_size"]),
        logit_softcap=hf["logits_soft_cap"],
    )


def embedding_scale(width: int) -> float:
    """The root of the width as the class keeps it: in bfloat16."""
    return float(torch.tensor(width**0.5, dtype=torch.bfloat16))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = dense.alternating(config, "recurrent_gemma", ("rg_lru", "gqa"), ("swiglu",))
    channel = layers[0][1]
    recurrent = next((m for m, _ in layers if isinstance(m, rg_lru.Config)), None)
    local = next((m for m, _ in layers if isinstance(m, gqa.Config)), None)
    heads = layers[0][0].n_heads  # of both kinds
    return {
        "model_type": "recurrent_gemma",
        "architectures": ["RecurrentGemmaForCausalLM"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": 2 * channel.hidden,
        "num_hidden_layers": len(layers),
        "num_attention_heads": heads,
        "num_key_value_heads": heads if local is None else local.n_kv_heads,
        "attention_window_size": DEFAULTS["attention_window_size"] if local is None else local.window,
        "attention_bias": local is not None and local.bias,
        "rope_parameters": {"partial_rotary_factor": 1.0, **rope.to_hf(local.rope)} if local is not None else None,
        "lru_width": config.d_model if recurrent is None else recurrent.width,
        "conv1d_width": DEFAULTS["conv1d_width"] if recurrent is None else recurrent.conv,
        "logits_soft_cap": config.logit_softcap,
        "rms_norm_eps": config.norm_eps,
        "hidden_activation": dense.ACTIVATIONS_OUT[channel.activation],
        "block_types": ["attention" if isinstance(m, gqa.Config) else "recurrent" for m, _ in layers],
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def rules(config: ModelConfig) -> list[Entry]:
    entries = dense.ends(config, last="final_norm")
    blocks = dense.resolved(config)
    for layer in range(len(blocks) // 2):
        (mixer,), (channel,) = blocks[2 * layer], blocks[2 * layer + 1]
        hf = f"model.layers.{layer}"
        entries.append(Rule(f"stack.norms.{2 * layer}.weight", f"{hf}.temporal_pre_norm.weight"))
        entries.append(Rule(f"stack.norms.{2 * layer + 1}.weight", f"{hf}.channel_pre_norm.weight"))
        mix = dense.attention_rules if mixer.type == "gqa" else recurrent_rules
        entries += [*mix(mixer, f"{hf}.temporal_block"), *dense.gated_rules(channel, f"{hf}.mlp_block")]
    return entries


def recurrent_rules(place: Any, hf: str) -> list[Rule]:
    """linear_y, linear_x, linear_out, conv_1d and the two gates of rg_lru."""
    zoo, unit, config = place.weights, f"{hf}.rg_lru", place.config
    halves = 2 * (config.width // config.n_heads,)
    gates = [f"{unit}.{gate}_gate" for gate in ("input", "recurrent")]
    return [
        *(rule for name in "yx" for rule in linear(f"{zoo}.{name}_proj", f"{hf}.linear_{name}")),
        *linear(f"{zoo}.out_proj", f"{hf}.linear_out"),
        Rule(f"{zoo}.conv.weight", f"{hf}.conv_1d.weight", Squeeze()),
        Rule(f"{zoo}.conv.bias", f"{hf}.conv_1d.bias"),
        Rule(f"{zoo}.gates", [f"{gate}_weight" for gate in gates], Concat(halves, 2)),
        Rule(f"{zoo}.gates_bias", [f"{gate}_bias" for gate in gates], Concat(halves, 1)),
        Rule(f"{zoo}.decay", f"{unit}.recurrent_param"),
    ]
