"""Falcon-Mamba (arXiv:2410.05355): Mamba with an RMS norm, without weights, of dt', B and C."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config import ModelConfig
from zoo.interop import dense, spaces
from zoo.interop.families import mamba
from zoo.interop.layers import only
from zoo.interop.maps import Entry

MODEL_TYPES = ("falcon_mamba",)
DEFAULTS: dict[str, Any] = {**mamba.DEFAULTS, "mixer_rms_eps": 1e-6}


def to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    hf = dense.read(hf, DEFAULTS)
    norms = {"norm_bcdt": "plain", "norm_eps": hf["mixer_rms_eps"]}
    return spaces.model(hf, spaces.mixer(hf, "mamba1", expand=mamba.growth(hf), dt_rank=mamba.rank(hf), **norms))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    found = only(config, "falcon_mamba", "mamba1")
    (mixer,) = found[0]
    common = spaces.to_hf(config, "FalconMamba", "falcon_mamba", len(found), mixer)
    return common | mamba.sizes(config, mixer) | {"mixer_rms_eps": mixer.norm_eps}


def rules(config: ModelConfig) -> list[Entry]:
    return mamba.rules(config)
