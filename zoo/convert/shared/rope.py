"""Rotary positions as config.json says them (rope_parameters; before transformers 5 rope_theta and rope_scaling) and as the zoo does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from blocks.errors import ConfigError, one_of
from blocks.rope import Rope

# keys of the zoo -> those of config.json, of a kind of scaling
KEYS = {
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "original_length": "original_max_position_embeddings",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
    },
    "yarn": {
        "factor": "factor",
        "original_length": "original_max_position_embeddings",
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
        "attention_factor": "attention_factor",
        "truncate": "truncate",
    },
}


def to_zoo(
    hf: Mapping[str, Any], theta: float, layer_type: str | None = None, *, partial: bool = False, pairs: str = "halves"
) -> dict[str, Any]:
    """The zoo's rope of a config.json. theta: the family's default base. layer_type: whose parameters, where each type has its own.
    partial: whether the family's class rotates a part of a head. Raises ConfigError for kinds of scaling that the zoo has not."""
    params = _parameters(hf, layer_type)
    share = params.get("partial_rotary_factor", hf.get("partial_rotary_factor")) or 1.0
    if share != 1 and not partial:
        raise ConfigError("partial_rotary_factor", share, "the family's class in transformers rotates whole heads whatever this says")
    rope: dict[str, Any] = {"base": float(params.get("rope_theta") or hf.get("rope_theta") or theta)}
    rope |= {"partial": share} if share != 1 else {}
    rope |= {"pairs": pairs} if pairs != "halves" else {}
    kind = params.get("rope_type", params.get("type", "default"))
    one_of("rope_parameters.rope_type", kind, ("default", *KEYS))
    return rope if kind == "default" else rope | {"scaling": _scaling(kind, params, hf)}


def _parameters(hf: Mapping[str, Any], layer_type: str | None) -> Mapping[str, Any]:
    params = hf.get("rope_scaling") or hf.get("rope_parameters") or {}
    inner = params.get(layer_type) if layer_type is not None else None
    return params if inner is None else inner


def _scaling(kind: str, given: Mapping[str, Any], hf: Mapping[str, Any]) -> dict[str, Any]:
    params: dict[str, Any] = {"original_max_position_embeddings": hf.get("max_position_embeddings")}
    params |= {key: value for key, value in given.items() if value is not None}
    if kind == "yarn" and "factor" not in params:
        params["factor"] = hf["max_position_embeddings"] / params["original_max_position_embeddings"]
    if kind == "yarn" and "attention_factor" not in params and params.get("mscale") and params.get("mscale_all_dim"):
        params["attention_factor"] = growth(params["factor"], params["mscale"]) / growth(params["factor"], params["mscale_all_dim"])
    return {"kind": kind} | {zoo: params[key] for zoo, key in KEYS[kind].items() if key in params}


def growth(factor: float, mscale: float) -> float:
    """YaRN's growth of queries and keys (DeepSeek's `mscale`)."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1


def to_hf(rope: Rope | None) -> dict[str, Any]:
    """rope_parameters of a Rope; of none an empty mapping (the family says elsewhere which layers have no positions)."""
    if rope is None:
        return {}
    params: dict[str, Any] = {"rope_type": "default", "rope_theta": rope.base}
    params |= {"partial_rotary_factor": rope.partial} if rope.partial != 1 else {}
    if rope.scaling is None:
        return params
    values = {key: getattr(rope.scaling, zoo) for zoo, key in KEYS[rope.scaling.kind].items()}
    return params | {"rope_type": rope.scaling.kind} | {key: value for key, value in values.items() if value is not None}
