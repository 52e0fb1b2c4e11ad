"""GPT-2 (Radford et al., 2019): layer norms, learned positions, biases everywhere, a plain channel mixer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.model import ModelConfig
from zoo.convert.shared import dense
from zoo.convert.shared.layers import assemble, only
from zoo.convert.weight_map import Entry, NotAWeight, Rule, Tied, Trunk, linear
from zoo.convert.weight_ops import Transpose

MODEL_TYPES = ("gpt2",)
MODELS = ("gpt2_small",)
DEFAULTS = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}

ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS, ALIASES)
    dense.refuse(hf, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    attention = {"type": "gqa", "n_heads": hf["n_head"], "rope": None, "bias": True, "output_bias": True}
    width = hf["n_inner"] or 4 * hf["n_embd"]
    channel = {"type": "mlp", "activation": dense.activation(hf["activation_function"]), "hidden": width, "bias": True}
    return {
        "d_model": hf["n_embd"],
        "vocab_size": hf["vocab_size"],
        "positions": hf["n_positions"],
        "norm": "layernorm",
        "norm_eps": hf["layer_norm_epsilon"],
        "tie_embeddings": bool(hf["tie_word_embeddings"]),
        **assemble([[attention], [channel]] * hf["n_layer"]),
    }


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = only(config, "gpt2", "gqa", "mlp")
    attention, channel = layers[0]
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocab_size,
        "n_positions": config.positions or 1,
        "n_embd": config.d_model,
        "n_layer": len(layers),
        "n_head": attention.n_heads,
        "n_inner": channel.hidden,
        "activation_function": dense.ACTIVATIONS_OUT[channel.activation],
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def rules(config: ModelConfig) -> list[Entry]:
    trunk = "transformer"
    head: Entry = Tied("lm_head.weight", f"{trunk}.wte.weight") if config.tie_embeddings else Rule("head.weight", "lm_head.weight")
    entries: list[Entry] = [
        Trunk(f"{trunk}."),
        Rule("embedding.weight", f"{trunk}.wte.weight"),
        Rule("positions.weight", f"{trunk}.wpe.weight"),
        *linear("norm", f"{trunk}.ln_f"),
        head,
        NotAWeight(f"{trunk}.h.*.attn.bias"),
        NotAWeight(f"{trunk}.h.*.attn.masked_bias"),
    ]
    blocks = dense.resolved(config)
    for layer in range(len(blocks) // 2):
        (attention,), (channel,) = blocks[2 * layer], blocks[2 * layer + 1]
        hf = f"{trunk}.h.{layer}"
        entries += linear(f"stack.norms.{2 * layer}", f"{hf}.ln_1") + linear(f"stack.norms.{2 * layer + 1}", f"{hf}.ln_2")
        entries += linear(f"{attention.weights}.qkv", f"{hf}.attn.c_attn", Transpose())
        entries += linear(f"{attention.weights}.out", f"{hf}.attn.c_proj", Transpose())
        entries += linear(f"{channel.weights}.up", f"{hf}.mlp.c_fc", Transpose())
        entries += linear(f"{channel.weights}.down", f"{hf}.mlp.c_proj", Transpose())
    return entries
