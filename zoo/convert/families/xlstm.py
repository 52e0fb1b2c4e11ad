"""xLSTM 7B's kind (arXiv:2503.13427): an mLSTM and a SwiGLU a layer, gates and logits capped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.errors import require
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense
from zoo.convert.shared.layers import assemble, only
from zoo.convert.weight_map import Entry, Rule, Trunk, linear
from zoo.convert.weight_ops import Concat

MODEL_TYPES = ("xlstm",)
MODELS = ("xlstm_7b",)
UNREAD = ("add_out_norm", "max_inference_chunksize", "norm_reduction_force_float32", "return_last_states", "num_hidden_layers")
DEFAULTS: dict[str, Any] = {
    "vocab_size": 50304,
    "hidden_size": 4096,
    "embedding_dim": None,
    "num_hidden_layers": 32,
    "num_blocks": None,
    "num_heads": 8,
    "use_bias": False,
    "tie_word_embeddings": False,
    "norm_eps": 1e-6,
    "qk_dim_factor": 0.5,
    "v_dim_factor": 1.0,
    "eps": 1e-6,
    "ffn_proj_factor": 2.667,
    "ffn_round_up_to_multiple_of": 64,
    "gate_soft_cap": 15.0,
    "output_logit_soft_cap": 30.0,
    "weight_mode": "single",
}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    dense.refuse(hf, use_bias=False, weight_mode="single", tie_word_embeddings=False)  # the class ties nothing whatever this says
    d = hf["hidden_size"]
    require(hf["embedding_dim"] in (None, d), "embedding_dim", hf["embedding_dim"], f"must be hidden_size = {d}")
    mixer = {
        "type": "mlstm",
        "n_heads": hf["num_heads"],
        "expand_k": hf["qk_dim_factor"],
        "expand_v": hf["v_dim_factor"],
        "gate_softcap": hf["gate_soft_cap"],
        "eps": hf["eps"],
        "norm_eps": hf["norm_eps"],
    }
    multiple = hf["ffn_round_up_to_multiple_of"]
    hidden = int((d * hf["ffn_proj_factor"] + multiple - 1) // multiple * multiple)
    channel = {"type": "swiglu", "hidden": hidden}
    return {
        "d_model": d,
        "vocab_size": hf["vocab_size"],
        "norm_eps": hf["norm_eps"],
        "logit_softcap": hf["output_logit_soft_cap"],
        "tie_embeddings": False,
        **assemble([[mixer], [channel]] * (hf["num_blocks"] or hf["num_hidden_layers"])),
    }


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = only(config, "xlstm", "mlstm", "swiglu")
    mixer, channel = layers[0]
    return {
        "model_type": "xlstm",
        "architectures": ["xLSTMForCausalLM"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "embedding_dim": config.d_model,
        "num_hidden_layers": len(layers),
        "num_blocks": len(layers),
        "num_heads": mixer.n_heads,
        "norm_eps": config.norm_eps,
        "qk_dim_factor": mixer.expand_k,
        "v_dim_factor": mixer.expand_v,
        "eps": mixer.eps,
        "ffn_proj_factor": (channel.hidden + 0.5) / config.d_model,  # the class rounds it down to whole multiples
        "ffn_round_up_to_multiple_of": 1,
        "gate_soft_cap": mixer.gate_softcap,
        "output_logit_soft_cap": config.logit_softcap,
        "autocast_kernel_dtype": "float32",
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def rules(config: ModelConfig) -> list[Entry]:
    entries: list[Entry] = [Trunk("backbone."), *dense.tables(config, "backbone.embeddings.weight"), *linear("norm", "backbone.out_norm")]
    blocks = dense.resolved(config)
    for layer in range(len(blocks) // 2):
        (mixer,), (channel,) = blocks[2 * layer], blocks[2 * layer + 1]
        hf = f"backbone.blocks.{layer}"
        entries += linear(f"stack.norms.{2 * layer}", f"{hf}.norm_mlstm") + linear(f"stack.norms.{2 * layer + 1}", f"{hf}.norm_ffn")
        entries += mixer_rules(config.d_model, mixer.config, mixer.weights, f"{hf}.mlstm_layer")
        names = (("gate", "proj_up_gate"), ("up", "proj_up"), ("down", "proj_down"))
        entries += [rule for zoo, name in names for rule in linear(f"{channel.weights}.{zoo}", f"{hf}.ffn.{name}")]
    return entries


def mixer_rules(d_model: int, config: Any, zoo: str, hf: str) -> list[Rule]:
    """q, k, v, the three gates, the norm and out_proj."""
    k, v = config.widths(d_model)
    return [
        *linear(f"{zoo}.in_proj", [f"{hf}.{name}" for name in ("q", "k", "v", "ogate_preact")], Concat((k, k, v, v))),
        *linear(f"{zoo}.gate_proj", [f"{hf}.{name}gate_preact" for name in "if"], Concat(2 * (config.n_heads,))),
        Rule(f"{zoo}.norm", f"{hf}.multihead_norm.weight"),
        *linear(f"{zoo}.out_proj", f"{hf}.out_proj"),
    ]
