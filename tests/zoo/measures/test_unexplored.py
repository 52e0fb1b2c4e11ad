"""Distances from known references, and states that leave what training reached."""

import math
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import zoo
from blocks.base import Config as BlockConfig
from blocks.context import Context
from blocks.errors import ConfigError
from zoo.measures import unexplored
from zoo.measures.unexplored import Config, Reference, learn

CONFIG = Config(train_length=32, times=4, documents=12, looks=4)


class State(NamedTuple):
    memory: Tensor  # (b, 2, d, 1)
    still: Tensor  # (b, 3)


class Sums(nn.Module):
    """Head 0 forgets within a few tokens, head 1 drifts in one direction for ever. Adds nothing to the residual stream."""

    def forward(self, x: Tensor, state: State | None, ctx: Context) -> tuple[Tensor, State]:
        memory, still = (x.new_zeros(len(x), 2, x.shape[-1], 1), x.new_zeros(len(x), 3)) if state is None else state
        for token in x.unbind(1):
            memory = torch.stack([0.5 * memory[:, 0] + token[..., None], memory[:, 1] + 1 + token[..., None]], 1)
        return torch.zeros_like(x), State(memory, still)


@dataclass(frozen=True, kw_only=True)
class SumsConfig(BlockConfig):
    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> nn.Module:
        return Sums()


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> zoo.Model:
    module = ModuleType("summing")
    module.Config = SumsConfig  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "summing", module)
    blocks = {"X": {"type": "summing.Config"}, "A": {"type": "gqa", "n_heads": 2}}
    return zoo.build({"d_model": 8, "vocab_size": 20, "blocks": blocks, "pattern": "X A", "plugins": ["summing"]}).double()


def documents(count: int = 12) -> list[Tensor]:
    return [torch.randint(0, 20, (128,), generator=torch.Generator().manual_seed(i)) for i in range(count)]


def test_a_state_that_drifts_leaves_what_training_reached(model: zoo.Model) -> None:
    found = unexplored.run(model, CONFIG, 0, data=documents())
    for token in CONFIG.beyond:
        kept, drifts = (f"layer=0;block=X;tensor=memory;head={head};token={token}" for head in (0, 1))
        assert found.row("auc", drifts)[2:5] == (1, 1, 1)
        assert found.row("outside", kept).value < 0.2
        assert found.row("distance", kept).value == pytest.approx(1, abs=0.3)
    assert found.row("outside", "layer=0;block=X;tensor=memory;head=1;token=128").value == 1
    distances = [found.row("distance", f"layer=0;block=X;tensor=memory;head=1;token={t}").value for t in CONFIG.beyond]
    assert distances == sorted(distances)
    assert distances[-1] > 5
    still = "layer=0;block=X;tensor=still;token=128"
    assert [found.row(metric, still).value for metric in ("distance", "outside", "auc")] == [0, 0, 0.5]
    assert not any("block=A" in str(r.condition) for r in found.rows), "a cache is no fixed state"
    far = found.row("unexplored", "token=128")
    assert 1 / 3 <= far.value < 2 / 3  # of three heads: the one that drifts, now and then the one that forgets
    inside = {str(r.condition) for r in found.rows if r.metric == "distance" and "layer" not in str(r.condition)}
    assert inside == {f"token={t}" for t in (*CONFIG.inside, *CONFIG.beyond)}


@pytest.mark.parametrize("call_tokens", [12, 60])
def test_pieces_do_not_matter(model: zoo.Model, call_tokens: int) -> None:
    config = Config(train_length=32, times=4, documents=4, looks=4)
    expected = unexplored.run(model, config, 0, data=documents())
    found = unexplored.run(model, Config(train_length=32, times=4, documents=4, looks=4, call_tokens=call_tokens), 0, data=documents())
    assert [r[:2] for r in found.rows] == [r[:2] for r in expected.rows]
    assert [r.value for r in found.rows] == pytest.approx([r.value for r in expected.rows], rel=1e-9)


def test_reference_is_the_mean_the_deviation_and_the_range() -> None:
    x = torch.randn(30, 2, 3, 4, dtype=torch.float64) * 5 + 100
    name = (0, "X", "memory")
    found = learn(iter([(i, {name: piece}) for i, piece in enumerate(x.split([7, 3, 20]))]))[name]
    assert found.count == 30
    assert torch.allclose(found.mean, x.mean(0))
    assert torch.allclose(found.squares / 29, x.var(0))
    assert torch.equal(found.low, x.amin(0))
    assert torch.equal(found.high, x.amax(0))
    far = found.far(x)
    assert far.distance.mean() == pytest.approx(1, abs=0.05)
    assert far.outside.max() == 0
    shifted = found.far(found.mean[None] + 3 * x.std(0)[None])
    assert shifted.distance[0] == pytest.approx([3, 3])


def test_distances_are_scale_free() -> None:
    x, y = torch.randn(2, 9, 2, 3, 4, dtype=torch.float64)
    name = (0, "X", "memory")
    one, other = (learn(iter([(1, {name: scale * x})]))[name].far(scale * y) for scale in (1.0, 1024.0))
    assert one.distance == pytest.approx(other.distance, rel=1e-12)
    assert (one.outside == other.outside).all()


def test_broken_and_unmoved_states() -> None:
    zero = torch.zeros(3, 4, dtype=torch.float64)
    reference = learn(iter([(1, {(0, "X", "s"): zero})]))[(0, "X", "s")]
    assert isinstance(reference, Reference)
    assert reference.far(zero).distance.tolist() == [0, 0, 0]
    moved = reference.far(torch.tensor([[0, 0, 0, 1.0], [math.nan, 0, 0, 0], [math.inf, 0, 0, 0]]).double())
    assert moved.distance.tolist() == [math.inf] * 3
    assert moved.outside.tolist() == [0.25, 0.25, 0.25]


def test_looks_and_needs() -> None:
    assert CONFIG.inside == [8, 16, 24, 32]
    assert CONFIG.beyond == [45, 64, 91, 128]
    assert Config(train_length=10, times=3, per_doubling=1, looks=2).beyond == [20, 30]
    with pytest.raises(ConfigError, match="documents = 3"):
        Config(train_length=32, documents=3)
