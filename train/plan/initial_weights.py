"""What a run starts from: its seed, or the weights that `init` names."""

from __future__ import annotations

from torch import Tensor

from train.config.run import RunConfig
from zoo.convert.model_folder import load_tensors
from zoo.model.model import Model, build
from zoo.weights.transfer import Transfer, plan_transfer, transfer


def first_model(spec: RunConfig) -> Model:
    """The model before the first step. Raises ConfigError where `init` does not fit."""
    model = build(spec.model, spec.seed)
    if spec.init is not None:
        tensors, found = _read(spec, spec.init)
        transfer(model, tensors, found)
    return model


def check_init(spec: RunConfig) -> Transfer | None:
    """What the run takes over from `init`; None: it starts from its seed. Raises ConfigError where the weights don't fit."""
    return None if spec.init is None else _read(spec, spec.init)[1]


def _read(spec: RunConfig, init: str) -> tuple[dict[str, Tensor], Transfer]:
    tensors = load_tensors(init)
    return tensors, plan_transfer(spec.model, tensors, f"init {init}", spec.fresh)
