"""Falcon-Mamba (arXiv:2410.05355): Mamba with an RMS norm, without weights, of dt', B and C."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.model import ModelConfig
from zoo.convert.families import mamba
from zoo.convert.shared import dense, state_spaces
from zoo.convert.shared.layers import only
from zoo.convert.weight_map import Entry

MODEL_TYPES = ("falcon_mamba",)
MODELS = ("falcon_mamba_7b",)
UNREAD = ("time_step_min",)
DEFAULTS: dict[str, Any] = {**mamba.DEFAULTS, "mixer_rms_eps": 1e-6}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    norms = {"norm_bcdt": "plain", "norm_eps": hf["mixer_rms_eps"]}
    return state_spaces.model(hf, state_spaces.mixer(hf, "mamba1", expand=mamba.growth(hf), dt_rank=mamba.rank(hf), **norms))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    layers = only(config, "falcon_mamba", "mamba1")
    (mixer,) = layers[0]
    common = state_spaces.to_hf(config, "FalconMamba", "falcon_mamba", len(layers), mixer)
    return common | mamba.sizes(config, mixer) | {"mixer_rms_eps": mixer.norm_eps}


def rules(config: ModelConfig) -> list[Entry]:
    return mamba.rules(config)
