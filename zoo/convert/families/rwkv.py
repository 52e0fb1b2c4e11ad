"""RWKV-4 (arXiv:2305.13048): the time mixer, then the channel mixer, layer norms with biases, one more right after the embedding.

`rescale_every` says where the class halves its hidden states in eval mode, to spare float16: what is computed stays the same, but for
the epsilon of the norms behind. It is read past, and written as 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.model import ModelConfig
from zoo.convert.shared import dense
from zoo.convert.shared.layers import assemble, only
from zoo.convert.weight_map import Entry, Rule, Trunk, linear
from zoo.convert.weight_ops import Squeeze

MODEL_TYPES = ("rwkv",)
MODELS = ("rwkv4_169m",)
UNREAD = ("context_length", "rescale_every")
DEFAULTS: dict[str, Any] = {
    "vocab_size": 50277,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "attention_hidden_size": None,
    "intermediate_size": None,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": False,
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    dense.refuse(hf, layer_norm_epsilon=1e-5)  # the class has no other in its last norm
    d = hf["hidden_size"]
    mixer = {"type": "rwkv4", "width": hf["attention_hidden_size"] or d}
    channel = {"type": "rwkv_channel_mix", "version": 4, "hidden": hf["intermediate_size"] or 4 * d}
    return {
        "d_model": d,
        "vocab_size": hf["vocab_size"],
        "norm": "layernorm",
        "norm_eps": hf["layer_norm_epsilon"],
        "embedding_norm": True,
        "tie_embeddings": bool(hf["tie_word_embeddings"]),
        **assemble([[mixer], [channel]] * hf["num_hidden_layers"]),
    }


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = only(config, "rwkv", "rwkv4", "rwkv_channel_mix")
    mixer, channel = layers[0]
    return {
        "model_type": "rwkv",
        "architectures": ["RwkvForCausalLM"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": len(layers),
        "attention_hidden_size": mixer.width,
        "intermediate_size": channel.hidden,
        "layer_norm_epsilon": config.norm_eps,
        "rescale_every": 0,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def rules(config: ModelConfig) -> list[Entry]:
    entries: list[Entry] = [Trunk("rwkv."), *dense.tables(config, "rwkv.embeddings.weight", "head.weight"), *linear("norm", "rwkv.ln_out")]
    entries += linear("embedding_norm", "rwkv.blocks.0.pre_ln")
    blocks = dense.resolved(config)
    for layer in range(len(blocks) // 2):
        (mixer,), (channel,) = blocks[2 * layer], blocks[2 * layer + 1]
        hf = f"rwkv.blocks.{layer}"
        entries += [*linear(f"stack.norms.{2 * layer}", f"{hf}.ln1"), *linear(f"stack.norms.{2 * layer + 1}", f"{hf}.ln2")]
        entries += [*half_rules(mixer.weights, f"{hf}.attention"), *half_rules(channel.weights, f"{hf}.feed_forward")]
        for zoo, name in (("decay", "decay"), ("bonus", "first")):
            entries.append(Rule(f"{mixer.weights}.{zoo}", f"{hf}.attention.time_{name}"))
    return entries


def half_rules(zoo: str, hf: str) -> list[Rule]:
    """The projections and mixing weights of a time or a channel mixer; the checkpoint keeps mixing weights as (1, 1, d)."""
    names = ("key", "value", "receptance")
    rules = [rule for name in (*names, "output") for rule in linear(f"{zoo}.{name}", f"{hf}.{name}")]
    return [*rules, *(Rule(f"{zoo}.mix_{name}", f"{hf}.time_mix_{name}", Squeeze(), Squeeze(0)) for name in names)]
