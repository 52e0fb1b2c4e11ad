"""Which parameters decay, in every block and in every model of configs/, and why the others do not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from blocks.base import Config
from blocks.catalogue import block_types, config_class
from train.trainer.optimiser import decayed
from zoo.config.model import load_model

MODELS = sorted((Path(__file__).parents[3] / "configs" / "models").rglob("*.yaml"))
STACKED = {"moe": {"up", "down"}, "rg_lru": {"gates"}}  # matrices of experts and of heads, in one tensor; all others are named weight
KEPT = {  # tensors of two dimensions or more that do not decay, and what they are
    "A_log": "rates of a state space, a row a channel",
    "conv.weight": "a filter of a few taps a channel",
    "bonus": "a vector a head",
    "gates_bias": "biases, a row a head",
    "up_bias": "biases, a row an expert",
    "down_bias": "biases, a row an expert",
    "mix": "shares of the token before, a row a use",
    "mix_down": "low-rank change of those shares",
    "mix_up": "low-rank change of those shares",
    "decay_down": "low-rank change of a decay",
    "decay_up": "low-rank change of a decay",
    **{f"{use}.{end}": "low-rank change of a vector" for use in ("decay", "rate", "value_mix", "gate") for end in ("down", "up")},
}


def check(block: nn.Module, kind: str) -> None:
    """Every parameter decays if it is a matrix that multiplies activations, and only then."""
    parameters, decays = dict(block.named_parameters()), decayed(block)
    assert decays.keys() == parameters.keys()
    for name, parameter in parameters.items():
        matrix = parameter.ndim == 2 and name.endswith("weight") and name not in KEPT
        assert decays[name] == (matrix or name in STACKED.get(kind, ())), name
        assert decays[name] or parameter.ndim < 2 or name in KEPT, f"{name}: say in KEPT why it does not decay"


@pytest.mark.parametrize("kind", block_types())
def test_matrices_of_every_block_decay_and_nothing_else(kind: str) -> None:
    check(config_class(kind)().build(64), kind)


def configs(path: Path) -> Iterator[tuple[Config, int]]:
    model = load_model(path)
    yield from ((named.config, model.d_model) for named in model.named.values())


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_matrices_of_every_model_decay_and_nothing_else(path: Path) -> None:
    """With the options of published models: biases of experts among them."""
    for config, d_model in configs(path):
        with torch.device("meta"):
            check(config.build(d_model), type(config).__module__.removeprefix("blocks."))
