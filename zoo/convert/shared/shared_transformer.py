"""What Zamba's two generations share: a state space a layer, and before some of them a transformer whose weights are used again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

from blocks.errors import ConfigError, one_of, require
from zoo.config.model import ModelConfig
from zoo.convert.shared import dense
from zoo.convert.shared.hybrid import KINDS
from zoo.convert.shared.layers import Place, Spec
from zoo.convert.weight_map import Entry, Rule, Tied, linear
from zoo.convert.weight_ops import Concat

ALIASES = {"layer_types": "layers_block_type", "head_dim": "attention_head_dim"}  # other names that the classes take


def read(hf: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of config.json that a class reads, with its defaults; attention is twice as wide as the model. Raises ConfigError."""
    values = dense.read({ALIASES.get(key, key): value for key, value in hf.items()}, defaults)
    width = 2 * values["hidden_size"]
    derived(values, attention_hidden_size=width)
    rule = "with an untied head the class in transformers doesn't share its transformers either"
    require(bool(values["tie_word_embeddings"]), "tie_word_embeddings", values["tie_word_embeddings"], rule, "true")
    values["attention_head_dim"] = values["attention_head_dim"] or width // values["num_attention_heads"]
    values["num_key_value_heads"] = values["num_key_value_heads"] or values["num_attention_heads"]
    return values


def derived(hf: Mapping[str, Any], **values: Any) -> None:
    """Raise ConfigError where a key that follows from others says something else than these values."""
    for key, value in values.items():
        require(hf[key] in (None, value), key, hf[key], f"follows from other keys, which say {value}", "leave it out")


def transformer(hf: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A shared transformer of a config.json; more: other fields of its block."""
    return {
        "type": "shared_transformer",
        "share": True,
        "norm_place": "none",
        "into": "next",
        "n_heads": hf["num_attention_heads"],
        "n_kv_heads": hf["num_key_value_heads"],
        "head_dim": hf["attention_head_dim"],
        "hidden": hf["intermediate_size"],
        "activation": dense.activation(hf["hidden_act"]),
        "norm_eps": hf["rms_norm_eps"],
        **more,
    }


def sublayers(kinds: Sequence[str], transformers: Sequence[Spec], space: Spec) -> list[list[Spec]]:
    """A state space a layer, in hybrid layers behind one of the transformers, in turn. Raises ConfigError."""
    turns, blocks = cycle(transformers), []
    for kind in kinds:
        one_of("layers_block_type", KINDS.get(kind, kind), ("linear_attention", "hybrid"))
        blocks += [[next(turns)], [space]] if kind == "hybrid" else [[space]]
    return blocks


class Layer(NamedTuple):
    """One layer of the checkpoint: a state space, and the transformer before it if there is one."""

    space: Place
    transformer: Place | None = None
    use: int = 0  # of the transformer's weights, from 0


def layers(config: ModelConfig, family: str, space: str) -> list[Layer]:
    """The layers of the checkpoint, sizes written out. space: the type of the state spaces. Raises ConfigError where the
    stack is another one."""
    layers: list[Layer] = []
    before: Place | None = None
    for place, *beside in dense.resolved(config):
        if beside or place.type not in ((space, "shared_transformer") if before is None else (space,)):
            rule = f"{family} has layers of {space}, before some of them a shared_transformer; sub-layer {place.sublayer} is another"
            raise ConfigError("pattern", config.pattern, rule)
        if place.type == "shared_transformer":
            before = place
            continue
        use = sum(before is not None and layer.transformer is not None and layer.transformer.weights == before.weights for layer in layers)
        layers.append(Layer(place, before, use))
        before = None
    require(any(layer.transformer for layer in layers), "pattern", config.pattern, f"{family} has a shared_transformer before some layer")
    return layers


def first(layers: Sequence[Layer]) -> tuple[Any, Any]:
    """The configs of the first state space and of the first transformer."""
    return layers[0].space.config, next(layer.transformer.config for layer in layers if layer.transformer is not None)


def to_hf(config: ModelConfig, name: str, model_type: str, layers: Sequence[Layer]) -> dict[str, Any]:
    """The keys of config.json of both generations. name: of the class in transformers."""
    space, shared = first(layers)
    return {
        "model_type": model_type,
        "architectures": [f"{name}ForCausalLM"],
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tie_embeddings,
        "hidden_size": config.d_model,
        "intermediate_size": shared.hidden,
        "num_hidden_layers": len(layers),
        "num_attention_heads": shared.n_heads,
        "attention_head_dim": shared.head_dim,
        "num_key_value_heads": shared.n_kv_heads,
        "hidden_act": dense.ACTIVATIONS_OUT[shared.activation],
        "rms_norm_eps": config.norm_eps,
        "layers_block_type": ["linear_attention" if layer.transformer is None else "hybrid" for layer in layers],
        "mamba_d_state": space.d_state,
        "mamba_d_conv": space.conv,
        "mamba_expand": space.inner(config.d_model) // config.d_model,
        "max_position_embeddings": dense.LONGEST,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def rules(
    config: ModelConfig,
    layers: Sequence[Layer],
    name: str,
    space_rules: Callable[[Place, str], list[Rule]],
    own_rules: Callable[[Place, str, list[int]], list[Rule]],
) -> list[Entry]:
    """The weight map. name: of a layer's transformer in the checkpoint, which may hold a copy for every use. space_rules, own_rules: of a
    state space and of what the generation's transformer has beside `transformer_rules`, from its place, its prefix in the checkpoint and
    which hybrid layers use it."""
    made = dense.ends(config, last="final_layernorm")
    hybrids: list[tuple[Place, int, str]] = []  # of each transformer: its use, and the prefix of the layer
    for index, layer in enumerate(layers):
        hf = f"model.layers.{index}"
        if layer.transformer is not None:
            hybrids.append((layer.transformer, layer.use, hf))
            hf += ".mamba_decoder"
        made += linear(f"stack.norms.{layer.space.sublayer}", f"{hf}.input_layernorm")
        made += space_rules(layer.space, f"{hf}.mamba")
    sources: dict[str, tuple[str, list[Rule]]] = {}  # of a transformer's weights: the prefix of the first copy's names, its rules
    for place, use, hf in hybrids:
        made.append(Rule(f"{place.weights}.own.{use}.linear.weight", f"{hf}.linear.weight"))
        if place.weights not in sources:
            prefix, uses = f"{hf}.{name}", [h for h, (other, _, _) in enumerate(hybrids) if other.weights == place.weights]
            sources[place.weights] = prefix, [*transformer_rules(place, prefix), *own_rules(place, prefix, uses)]
            made += sources[place.weights][1]
        else:
            prefix, known = sources[place.weights]
            copied = [source for rule in known for source in rule.hf]
            made += [Tied(f"{hf}.{name}{source.removeprefix(prefix)}", source) for source in copied]
    return made


def transformer_rules(place: Place, hf: str) -> list[Rule]:
    """What both generations' transformers have."""
    config: Any = place.config
    e, zoo = config.head_dim, place.weights
    sizes = (config.n_heads * e, config.n_kv_heads * e, config.n_kv_heads * e)
    return [
        Rule(f"{zoo}.norm.weight", f"{hf}.input_layernorm.weight"),
        Rule(f"{zoo}.qkv.weight", [f"{hf}.self_attn.{name}_proj.weight" for name in "qkv"], Concat(sizes)),
        Rule(f"{zoo}.out.weight", f"{hf}.self_attn.o_proj.weight"),
        Rule(f"{zoo}.mlp_norm.weight", f"{hf}.pre_ff_layernorm.weight"),
        *linear(f"{zoo}.down", f"{hf}.feed_forward.down_proj"),
    ]
