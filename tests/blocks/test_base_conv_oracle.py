"""base_conv against the published equations written out token by token and channel by channel; the layers of the published models."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from blocks.base_conv import Config
from blocks.context import advance
from blocks.errors import ConfigError
from tests.oracle import error, moved
from zoo.check.contract import check_block
from zoo.config.model import load_model

D, T = 10, 9
PUBLISHED = Path(__file__).parents[2] / "configs" / "models" / "published"


def by_steps(block: Any, x: Tensor) -> Tensor:
    """One row x (t, d) -> y (t, d), a token and a channel at a time."""
    weights = dict(block.named_parameters())
    taps, rows, past = block.conv.weight.shape[1], [], []
    for token in x:
        both = weights["in_proj.weight"] @ token + weights.get("in_proj.bias", 0)
        width = len(both) // 2
        past.append(both[:width])
        inner = []
        for c in range(width):
            reached = sum(block.conv.weight[c, taps - 1 - j] * past[-1 - j][c] for j in range(min(taps, len(past))))
            inner.append(reached / (1 + (-reached).exp()) * both[width + c])
        rows.append(weights["out_proj.weight"] @ torch.stack(inner) + weights.get("out_proj.bias", 0))
    return torch.stack(rows)


@pytest.mark.parametrize("config", [Config(), Config(conv=4, expand=1, bias=False), Config(conv=1, expand=3)])
def test_published_equations(config: Config) -> None:
    block = moved(config.build(D)).double()
    x, weight = torch.randn(2, T, D, dtype=torch.float64), torch.randn(2, T, D, dtype=torch.float64)
    results = []
    for y in (block(x, None, advance(None, 2, T)[0])[0], torch.stack([by_steps(block, row) for row in x])):
        results.append([y, *torch.autograd.grad((y * weight).sum(), list(block.parameters()))])
    for got, exact in zip(*results, strict=True):
        assert error(got, exact) < 1e-12


def test_published_size() -> None:
    """The mixer of a layer of width 1024: in_proj and out_proj with biases, three taps of 2048 channels."""
    assert Config().cost(1024, 1).params == (1024 + 1) * 4096 + (2048 + 1) * 1024 + 3 * 2048


@pytest.mark.parametrize("config", [Config(conv=1, expand=1), Config(conv=5, bias=False)])
def test_contract_of_the_variants(config: Config) -> None:
    check_block(config, d_model=16)


@pytest.mark.parametrize(("config", "place"), [(Config(conv=0), "conv"), (Config(expand=0), "expand")])
def test_sizes_that_can_not_be(config: Config, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.check(D)
    assert caught.value.place == place


@pytest.mark.parametrize(
    ("name", "layers", "linear", "sliding"),
    [
        ("based_360m", 27, [1, 6, 11, 16, 21], [2, 7, 12, 17, 22]),
        ("based_1_3b", 36, [1, 6, 11, 16, 21, 27, 33], [2, 7, 12, 17, 22, 28, 34]),
    ],
)
def test_published_layers(name: str, layers: int, linear: list[int], sliding: list[int]) -> None:
    mixers = [block for (block,) in load_model(PUBLISHED / f"{name}.yaml").layers][::2]
    assert len(mixers) == layers
    assert [i for i, block in enumerate(mixers) if block == "L"] == linear
    assert [i for i, block in enumerate(mixers) if block == "W"] == sliding
