"""The weights that a run starts from: drawn from its seed, or those that `init` names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from train.config.run import RunConfig
from zoo.convert.model_folder import load_tensors, read_shapes
from zoo.model.model import Model, build
from zoo.weights.transfer import Transfer, plan_transfer, transfer


def first_model(run: RunConfig) -> Model:
    """The model before the first step. Reads the weights of `init` once. Raises ConfigError where they do not fit."""
    model = build(run.model, run.seed)
    if run.init is not None:
        tensors = load_tensors(run.init)
        transfer(model, tensors, _transfer(run, run.init, tensors))
    return model


def plan_init(run: RunConfig, shapes: Mapping[str, Tensor] | None = None) -> Transfer | None:
    """What the run takes over from `init`, by names and shapes alone; None: it starts from its seed.

    shapes: of the weights of `init`, where they were read before (see read_shapes). Raises ConfigError where they don't fit.
    """
    if run.init is None:
        return None
    return _transfer(run, run.init, read_shapes(run.init) if shapes is None else shapes)


def _transfer(run: RunConfig, init: str, tensors: Mapping[str, Tensor]) -> Transfer:
    return plan_transfer(run.model, tensors, f"init {init}", run.fresh)
